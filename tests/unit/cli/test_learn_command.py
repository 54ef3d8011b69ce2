"""`misfit learn`: what it prints, and how it ends."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import photographs
import pytest
from click.testing import CliRunner

from service.bundle import store
from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES, PROVENANCE
from service.cli.commands import training_process
from service.cli.main import cli


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_it_learns_a_folder_and_says_what_comes_next(tmp_path):
    photographs.write_tree(tmp_path / "mine", 20)
    (tmp_path / "mine" / "broken.png").write_bytes(b"nothing")
    result = invoke("learn", tmp_path / "mine", "--out", tmp_path / "bundle", "--axes", 5)
    assert result.exit_code == 0, result.output
    assert "learned 60 photographs" in result.stdout
    assert f"misfit score FOLDER --bundle {tmp_path / 'bundle'}" in result.stdout
    assert f"misfit serve {tmp_path / 'bundle'}" in result.stdout
    assert f"left out {tmp_path / 'mine' / 'broken.png'}" in result.stderr
    assert sum(latent.factor == "content" for latent in store.load(tmp_path / "bundle").manifest.latents) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--out", "bundle"], 1, "is no folder"),
        (["nowhere"], 2, "--out"),
        (["nowhere", "--out", "bundle", "--backbone", "resnet50"], 2, "is no file"),
        (["nowhere", "--out", "bundle", "--axes", "0"], 2, "0 is not in the range"),
    ],
)
def test_mistakes_are_explained(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("learn", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupted_it_says_how_to_go_on(tmp_path, monkeypatch):
    photographs.write_tree(tmp_path / "mine", 20)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.commands.learn.learning.learn", interrupt)
    result = invoke("learn", tmp_path / "mine", "--out", tmp_path / "bundle")
    assert result.exit_code == 130
    assert "goes on from here" in result.stderr


def test_names_that_are_not_utf_8_and_a_bundle_within_the_folder(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9 photos")
    photographs.write_tree(folder, 20)
    (folder / os.fsdecode(b"na\xefve.jpg")).write_bytes(b"nothing")
    for _ in range(2):  # the second time the first bundle, which has a picture, lies in the folder
        result = invoke("learn", folder, "--out", folder / "model")
        assert result.exit_code == 0, result.output
        assert "learned 60 photographs" in result.stdout
    assert "left out" in result.stderr


class Process:
    """In place of a process with PyTorch: it ends with a code, and keeps what it was started with."""

    started: ClassVar[list[list[str]]] = []
    code = 0

    def __init__(self, command):
        self.started.append(command)

    def wait(self):
        return self.code

    def terminate(self):
        raise AssertionError


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(training_process, "list_missing", lambda packages: [])
    monkeypatch.setattr(training_process.subprocess, "Popen", Process)
    monkeypatch.setattr(Process, "started", [])
    return Process


@pytest.mark.parametrize("code", [0, -15])
def test_a_decoder_is_trained_by_another_process(tmp_path, monkeypatch, processes, code):
    photographs.write_tree(tmp_path / "mine", 20)
    monkeypatch.setattr(Process, "code", code)
    result = invoke("learn", tmp_path / "mine", "--out", tmp_path / "bundle", "--decoder")
    assert result.exit_code == (code if code >= 0 else 1)
    ((_, *command),) = processes.started
    assert command == ["-m", "export.decoder", str(tmp_path / "bundle"), str(tmp_path / "mine")]
    assert ("serve it" in result.stdout) == (code == 0)
    assert ("has no decoder yet" in result.stderr) == (code != 0)


def test_without_torch_a_decoder_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(training_process, "list_missing", lambda packages: ["torch"])
    result = invoke("learn", "nowhere", "--out", tmp_path / "bundle", "--decoder")
    assert result.exit_code == 2
    assert '--decoder needs torch: pip install "misfit[train]"' in result.stderr


def test_a_name_of_timm_is_exported_by_another_process(tmp_path, monkeypatch, processes):
    photographs.write_tree(tmp_path / "mine", 20)

    def run(command, check):
        assert command[1:4] == ["-m", "export.timm_backbone", "some_model"]
        path = Path(command[5])
        path.parent.mkdir()
        path.write_bytes((BACKBONES / DEFAULT_BACKBONE / FEATURES).read_bytes())
        path.with_name(PROVENANCE).write_text('{"name": "some_model (timm)", "licence": "mit"}')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(training_process.subprocess, "run", run)
    result = invoke("learn", tmp_path / "mine", "--out", tmp_path / "bundle", "--backbone", "some_model")
    assert result.exit_code == 0, result.output
    manifest = store.load(tmp_path / "bundle").manifest
    assert manifest.training["backbone"]["name"] == "some_model (timm)"
    assert not list(tmp_path.glob(".*"))


def test_an_export_that_fails_ends_the_command(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(training_process.subprocess, "run", lambda command, check: SimpleNamespace(returncode=1))
    assert invoke("learn", tmp_path, "--out", tmp_path / "bundle", "--backbone", "some_model").exit_code == 1
