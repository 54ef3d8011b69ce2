"""`misfit score` and its like: what they print, what they write, and how they end."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from serving import ROOT

from service.cli.endings import ExitCode
from service.cli.main import COMMANDS, cli
from service.offline.heat_map_files import safe_path
from service.offline.scores_table import read_scores

BATCH = ROOT / "tests/data/shapes3d_batch.zip"
FLAGGED = {"58.png", "49.png", "35.png", "14.png"}


def invoke(*arguments, stdin=None):
    return CliRunner().invoke(cli, [str(each) for each in arguments], input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The sample batch as files, with one that is no image."""
    path = tmp_path_factory.mktemp("batch")
    zipfile.ZipFile(BATCH).extractall(path)
    (path / "broken.png").write_bytes(b"nothing")
    return path


def test_a_folder_is_scored_written_and_its_flagged_files_are_set_apart(folder, tmp_path):
    outs = [tmp_path / f"scores{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    out_options = [each for path in outs for each in ("--out", path)]
    apart = ("--copy-flagged", tmp_path / "copies", "--link-flagged", tmp_path / "links")
    result = invoke("score", folder, *out_options, *apart, "--strict", "--nearest", 1)
    assert result.exit_code == ExitCode.UNREADABLE, result.output
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert {line[4] for line in lines if line[1] == "outlier"} == FLAGGED
    assert lines[1][:2] == ["1", "outlier"]
    assert "unreadable broken.png" in result.stderr
    assert "60 images scored, 4 flagged, 1 unreadable, reliability high" in result.stderr
    tables = [read_scores(path) for path in outs]
    assert tables[0].rows == tables[1].rows == tables[2].rows
    assert tables[1].info == tables[2].info
    rows = {row.id: row for row in tables[2].rows}
    assert rows["58.png"].path == str(folder / "58.png")
    assert set(json.loads(rows["58.png"].attributions)) >= {"object hue", "wall hue"}
    assert json.loads(rows["58.png"].nearest)[0]["id"] in rows
    assert (rows["broken.png"].rank, bool(rows["broken.png"].error)) == (None, True)
    assert tables[2].info.groups[""].flagged == 4
    for name in ("copies", "links"):
        assert {each.name for each in (tmp_path / name).iterdir()} == FLAGGED
    assert os.readlink(tmp_path / "links/58.png") == str(folder / "58.png")


def test_groups_are_compared_within_themselves_and_files_move_when_told(tmp_path):
    names = zipfile.ZipFile(BATCH).namelist()
    for number, name in enumerate(names):
        path = tmp_path / "tree" / f"class{number % 2}" / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zipfile.ZipFile(BATCH).read(name))
    (tmp_path / "tree/none").mkdir()
    (tmp_path / "tree/none/broken.png").write_bytes(b"nothing")
    result = invoke("score", tmp_path / "tree", "--by", "folder", "--move-flagged", tmp_path / "apart", "--json")
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert list(answers) == ["class0", "class1"]
    assert len(answers["class0"]["items"]) == 30
    moved = {str(each.relative_to(tmp_path / "apart")) for each in (tmp_path / "apart").rglob("*.png")}
    assert moved
    assert all(not (tmp_path / "tree" / name).exists() for name in moved)
    assert len(list((tmp_path / "tree").rglob("*.png"))) == 61 - len(moved)
    assert "3 groups" in result.stderr


def test_a_context_is_kept_and_compared_with(folder, tmp_path):
    context = tmp_path / "new/context.json"
    assert invoke("fit", BATCH, "--out", context).exit_code == 0
    merged = invoke("fit", "--context", context, "--context", context, "--out", tmp_path / "both.json")
    assert "120 images" in merged.stderr, merged.output
    listed = "\n".join(str(folder / name) for name in ("58.png", "00.png"))
    result = invoke("score", "-", "--context", context, "--fail-if-flagged", stdin=listed)
    assert result.exit_code == ExitCode.FLAGGED, result.output
    assert result.stdout.splitlines()[1].split("\t")[4] == "58.png"
    (tmp_path / "bad.json").write_text("{}")
    assert "bundle_id" in invoke("score", folder, "--context", tmp_path / "bad.json").stderr


def test_pictures_heat_maps_and_descriptions(folder, tmp_path):
    result = invoke("edit", BATCH, "--which", "58.png,49.png", "--out", tmp_path / "mended")
    assert result.exit_code == 0, result.output
    assert {each.name for each in (tmp_path / "mended").iterdir()} == {"0_58.png", "1_49.png", "answer.json"}
    assert result.stdout.splitlines()[0].endswith("\tfits")
    result = invoke("explain", BATCH, "--maps", tmp_path / "maps", "--show", 1)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "maps/58.png.wall hue.png").read_bytes()[:4] == b"\x89PNG"
    assert len(result.stdout.splitlines()) == 2
    assert "handwritten digits" in invoke("describe", "mnist").stdout
    assert json.loads(invoke("describe", "mnist", "--json").stdout)["image"]["width"] == 28


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["score"], 2, "Missing argument"),
        (["score", "nowhere"], 2, "nowhere does not exist"),
        (["score", ".", "--threshold", "2"], 2, "threshold"),
        (["score", ".", "--fdr", "0.1", "--threshold", "0.2"], 2, "two rules"),
        (["score", ".", "--out", "scores.xlsx"], 2, "expected one of .parquet"),
        (["score", ".", "--url", "http://x", "--bundle", "mnist"], 2, "say three times"),
        (["score", ".", "--url", "x.example"], 2, "expected http://"),
        (["score", ".", "--token", "x"], 2, "for a running service"),
        (["score", ".", "--bundle", "nowhere"], 4, "nowhere/manifest.json cannot be read"),
        (["score", "b.zip", "--move-flagged", "apart"], 2, "--copy-flagged"),
        (["score", "broken.png"], 4, "None of the 1 images can be used"),
        (["score", ".", "--url", "http://127.0.0.1:9"], 4, "Is the service running"),
        (["edit", ".", "--edit", "set"], 2, "need values"),
        (["fit", "--out", "x.json"], 2, "Neither images nor a context"),
        (["nonsense"], 2, "No such command"),
        (["score", "chw.npy"], 4, "channels first"),
    ],
)
def test_mistakes_are_one_line(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with zipfile.ZipFile("b.zip", "w") as archive:
        archive.writestr("x.png", b"nothing")
    np.save("chw.npy", np.zeros((3, 64, 64), np.uint8))
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    if "Usage:" not in result.stderr:
        assert result.stderr.count("\n") == 1
    assert {each.name for each in tmp_path.iterdir()} == {"broken.png", "b.zip", "chw.npy"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "--out", "scores.csv"],
        ["score", "--out", "scores.jsonl"],
        ["score", "--out", "scores.parquet"],
        ["score", "--html", "report.html"],
        ["score", "--copy-flagged", "flagged"],
        ["score", "--engine", "local", "--out", "scores.csv"],
        ["explain", "--maps", "maps"],
        ["edit", "--out", "pictures"],
        ["fit", "--out", "context.json"],
    ],
    ids=" ".join,
)
def test_no_room_is_one_line_and_no_file_is_half_written(arguments, tmp_path):
    """Files may have 300 bytes, as on a disk that is nearly full."""
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n" + (
        "from service.cli.main import cli; cli()"
    )
    command, *options = arguments
    ended = subprocess.run(
        [sys.executable, "-c", program, command, str(BATCH), *options, "--quiet"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == ExitCode.FAILED, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if "the same command goes on" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].endswith("File too large")
    assert ".tmp" not in lines[0]
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names <= {"lock", "manifest.json"}, "what a command of two passes keeps to go on"


def test_help_imports_nothing_heavy_and_says_what_the_commands_say():
    program = (
        "import sys; from service.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in ended.stderr.split()}
    assert not imported & {"numpy", "pydantic", "scipy", "rich", "grpc", "httpx", "onnxruntime", "PIL", "pyarrow"}
    for name in COMMANDS:
        assert f"  {name} " in ended.stdout
        assert invoke(name, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("id_", "path"),
    [("a/b.png", "a/b.png"), ("../../etc/x", "etc/x"), ("/abs/x", "abs/x"), ("..", "image"), ("c:\\x\\y", "c_/x/y")],
)
def test_names_of_an_archive_stay_within_the_folder(id_, path):
    assert str(safe_path(id_)) == path
