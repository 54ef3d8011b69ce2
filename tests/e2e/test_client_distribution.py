"""The client's own distribution, in another project that has a package called service (clients/python)."""

import runpy
import sys
import zipfile
from pathlib import Path

import pytest
from client_project import use_client
from serving import ROOT

BATCH = ROOT / "tests" / "data" / "shapes3d_batch.zip"


def test_it_works_where_another_package_is_called_service(served, tmp_path):
    runpy.run_path(str(ROOT / "clients" / "python" / "collect.py"))["collect"](tmp_path / "source")
    with zipfile.ZipFile(BATCH) as archive:
        archive.extractall(tmp_path / "batch")
    images = sorted((tmp_path / "batch").glob("*.png"))
    urls = (served.url, f"grpc://{served.grpc_target}")
    printed = use_client(Path(sys.executable), tmp_path / "project", [tmp_path / "source"], urls, images)
    assert printed.split() == ["14.png", "35.png", "49.png", "58.png"]


def test_its_modules_name_no_other_package_of_ours(tmp_path):
    modules = runpy.run_path(str(ROOT / "clients" / "python" / "collect.py"))["collect"](tmp_path)
    assert {"service.client.client", "service.client.grpc_transport", "service.api.schemas"} <= modules
    assert not any(name.startswith(("service.pipeline", "service.inference", "service.transports")) for name in modules)
    for path in (tmp_path / "misfit_client").rglob("*.py"):
        source = path.read_text()
        compile(source, str(path), "exec")
        assert "from service" not in source
        assert "import service" not in source


@pytest.mark.parametrize("line", ["import scipy", "from sklearn import svm"])
def test_an_import_that_it_does_not_name_ends_the_build(tmp_path, monkeypatch, line):
    collect = runpy.run_path(str(ROOT / "clients" / "python" / "collect.py"))["collect"]
    (tmp_path / "service" / "client").mkdir(parents=True)
    (tmp_path / "service" / "client" / "__init__.py").write_text(line)
    monkeypatch.setitem(collect.__globals__, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="does not name"):
        collect(tmp_path / "out")
