"""Two services of one user keep their counts apart, and leave nothing behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def bentoml_home(tmp_path, metric_folders):
    """The home of BentoML, for one test."""
    container = metric_folders.BentoMLContainer
    home, directory = container.bentoml_home, container.prometheus_multiproc_dir
    before = home.get(), directory.get()
    home.set(str(tmp_path))
    yield tmp_path
    home.set(before[0])
    directory.set(before[1])


@pytest.fixture
def metric_folders():
    """The module, whose import of BentoML warns."""
    from service.hosting import metric_folders

    return metric_folders


def make_folder() -> Path:
    from bentoml.serving import ensure_prometheus_dir

    return Path(ensure_prometheus_dir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_service_has_a_folder_of_its_own(metric_folders, bentoml_home):
    folders = []
    for _ in range(2):
        metric_folders.choose_own_folder()
        folders.append(make_folder())
        (folders[-1] / "counter_1.db").touch()
    assert folders[0] != folders[1]
    assert all((folder / "counter_1.db").exists() for folder in folders)
    assert {folder.parent for folder in folders} == {bentoml_home / "misfit_metrics"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_folders_of_supervisors_that_were_killed_are_removed(metric_folders, bentoml_home, monkeypatch):
    at_exit = []
    monkeypatch.setattr("atexit.register", lambda function, *args, **_: at_exit.append((function, args)))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    metric_folders.choose_own_folder()
    own = make_folder()
    host = own.name.rsplit("-", 2)[0]
    killed, others = f"{host}-{ended.pid}-x", [f"another-{ended.pid}-x", f"{host}-{os.getppid()}-x", f"{host}-x"]
    for name in (killed, *others):
        (own.parent / name).mkdir()
    metric_folders.remove_folders()
    assert {folder.name for folder in own.parent.iterdir()} == {own.name, *others}
    assert at_exit == [(shutil.rmtree, (own,))]
