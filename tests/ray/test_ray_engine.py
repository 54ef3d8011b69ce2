"""The engine of Ray: the numbers of one request, whatever the actors and shards, and whoever was killed. `make ray`."""

import os
import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner
from serving import ROOT

from service.cli.main import cli
from service.offline.scores_table import read_scores

pytest.importorskip("ray")

BATCH = ROOT / "tests/data/shapes3d_batch.zip"
# The command with shards of a few images. Its first two arguments say how many, and who is killed when.
PROGRAM = """
import os, signal, sys
from contextlib import contextmanager
import psutil
from service.cli import score_large
from service.offline.engines import ray_data, work
work.SHARD_IMAGES, who = int(sys.argv.pop(1)), sys.argv.pop(1)

def dies_once(actor, marker):
    class DiesOnce(actor):
        def __call__(self, batch):
            if not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)
    return DiesOnce

if who == "worker":
    ray_data.EncodingActor = dies_once(ray_data.EncodingActor, os.environ["MARKER"] + ".encoding")
    ray_data.ScoringActor = dies_once(ray_data.ScoringActor, os.environ["MARKER"] + ".scoring")

@contextmanager
def end_at_progress(label, total, quiet=False):
    def advance(count):
        if count and who.endswith(label):
            if who.startswith("tree"):
                for process in psutil.Process().children(recursive=True):
                    process.kill()
            os.kill(os.getpid(), signal.SIGKILL)
    yield advance

if who.startswith(("driver", "tree")):
    score_large.show_progress = end_at_progress
from service.cli.main import cli
cli()
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two groups, whose border is no border of shards, with an image that cannot be read, and a group of no images."""
    path = tmp_path_factory.mktemp("tree")
    with zipfile.ZipFile(BATCH) as archive:
        for number, name in enumerate(archive.namelist()):
            file = path / ("ab"[number // 31]) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(archive.read(name))
    (path / "a/broken.png").write_bytes(b"nothing")
    (path / "none").mkdir()
    (path / "none/broken.png").write_bytes(b"nothing")
    return path


@pytest.fixture(scope="module")
def expected(tree, tmp_path_factory):
    """The scores of one request for each group."""
    out = tmp_path_factory.mktemp("expected") / "scores.parquet"
    result = CliRunner().invoke(cli, ["score", str(tree), "--by", "folder", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return read_scores(out)


def score(tree, out, work, images, who, *options):
    arguments = ["score", tree, "--by", "folder", "--out", out, "--work", work, "--engine", "ray", *options]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(images), who, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("actors", "images"), [(1, 8), (3, 16)])
def test_numbers_are_those_of_a_request_whatever_actors_and_blocks(actors, images, tree, expected, tmp_path):
    result = score(tree, tmp_path / "scores.parquet", tmp_path / "work", images, "nobody", "--actors", actors)
    assert result.returncode == 0, result.stderr
    assert "2 unreadable" in result.stderr
    assert "executor" not in result.stderr, "the cluster's own messages are no part of the answer"
    assert read_scores(tmp_path / "scores.parquet") == expected


def test_lost_workers_of_both_passes_are_survived(tree, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("MARKER", str(tmp_path / "killed"))
    result = score(tree, tmp_path / "scores.parquet", tmp_path / "work", 16, "worker")
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.glob("killed.*")} == {"killed.encoding", "killed.scoring"}
    assert read_scores(tmp_path / "scores.parquet") == expected


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        ("driver encoding", "latents"),
        ("driver scoring", "scores"),
        ("tree encoding", "latents"),
        ("tree scoring", "scores"),
    ],
)
def test_a_lost_driver_or_tree_goes_on_with_what_is_done(who, kind, tree, expected, tmp_path):
    out, work = tmp_path / "scores.parquet", tmp_path / "work"
    ended = score(tree, out, work, 16, who)
    assert ended.returncode == -9, ended.stderr
    assert not out.exists()
    done = {path.name: path.stat().st_ino for path in (work / kind).glob("*.parquet")}
    assert done
    engine = ("--engine", "local") if who == "tree scoring" else ()  # the last one wins: engines share what is done
    result = score(tree, out, work, 16, "nobody", *engine)
    assert result.returncode == 0, result.stderr
    assert read_scores(out) == expected
    assert {name: (work / kind / name).stat().st_ino for name in done} == done


def test_what_no_actor_can_get_is_one_line(tree, tmp_path):
    result = score(tree, tmp_path / "scores.csv", tmp_path / "work", 16, "nobody", "--actor-gpus", 64)
    assert result.returncode == 4
    assert result.stderr.splitlines()[-1].startswith(
        "error: An actor takes 64 GPU, and no machine of the cluster has more"
    )
