"""`misfit learn`: what it prints, and how it ends."""

import os

import photographs
import pytest
from click.testing import CliRunner

from service.bundle import store
from service.cli.main import cli


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_it_learns_a_folder_and_says_what_comes_next(tmp_path):
    photographs.write_tree(tmp_path / "mine", 20)
    (tmp_path / "mine" / "broken.png").write_bytes(b"nothing")
    result = invoke("learn", tmp_path / "mine", "--out", tmp_path / "bundle", "--axes", 5)
    assert result.exit_code == 0, result.output
    assert "learned 60 photographs" in result.stdout
    assert f"MISFIT_BUNDLE={tmp_path / 'bundle'} bentoml serve" in result.stdout
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

    monkeypatch.setattr("service.cli.learn.learning.learn", interrupt)
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
