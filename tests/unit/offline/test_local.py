"""The engine for large inputs: the numbers of a request, whatever the shards, and whenever it was ended."""

import errno
import os
import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner
from serving import ROOT

from service.cli.main import cli
from service.offline.scores_table import read_scores

pytest.importorskip("pyarrow")

BATCH = ROOT / "tests/data/shapes3d_batch.zip"
# The command with shards of 8 images. It ends itself by SIGKILL at a moment that its first argument names.
PROGRAM = """
import os, signal, sys
from service.cli import score_large
from service.offline import table_formats
from service.offline.engines import work
work.SHARD_IMAGES = 8
moment, calls = sys.argv.pop(1), 0
def end(at):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
replace, write = os.replace, table_formats.Parquet.write
if moment == "before a shard has its name":
    def before(source, target):
        if str(target).endswith(".parquet"):
            end(3)
        replace(source, target)
    os.replace = before
elif moment == "while scores are written":
    def writing(self, rows):
        write(self, rows)
        end(2)
    table_formats.Parquet.write = writing
from service.cli.main import cli
cli()
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three groups, whose borders are no borders of shards, with images that cannot be read."""
    path = tmp_path_factory.mktemp("tree")
    with zipfile.ZipFile(BATCH) as archive:
        for number, name in enumerate(archive.namelist()):
            file = path / ("abc"[number // 21]) / name
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
    result = CliRunner().invoke(cli, ["score", str(tree), "--by", "folder", "--nearest", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return read_scores(out)


def score(tree, out, *options):
    return CliRunner().invoke(
        cli, ["score", str(tree), "--by", "folder", "--nearest", "1", "--out", str(out), *map(str, options)]
    )


@pytest.mark.parametrize(
    ("moment", "at_least"),
    [("before a shard has its name", 2), ("while scores are written", 8)],
)
def test_ended_at_any_moment_it_goes_on_with_equal_results(moment, at_least, tree, expected, tmp_path, monkeypatch):
    out, work = tmp_path / "scores.parquet", tmp_path / ".scores.parquet.work"
    arguments = ["score", str(tree), "--by", "folder", "--nearest", "1", "--out", str(out), "--work", str(work)]
    ended = subprocess.run([sys.executable, "-c", PROGRAM, moment, *arguments], cwd=ROOT, capture_output=True)
    assert ended.returncode == -9, ended.stderr.decode()
    assert not out.exists()
    done = {path: path.stat().st_ino for path in work.glob("*/*.parquet")}
    assert len(list((work / "latents").glob("*.parquet"))) >= at_least
    assert len(list((work / "scores").glob("*.parquet"))) == (moment == "while scores are written")
    monkeypatch.setattr("service.offline.engines.work.SHARD_IMAGES", 8)
    result = score(tree, out, "--work", work)
    assert result.exit_code == 0, result.output
    assert read_scores(out) == expected
    assert len(list((work / "latents").glob("*"))) == 8
    assert {path: path.stat().st_ino for path in done} == done


def test_other_work_is_refused_and_two_processes_do_not_share_it(tree, tmp_path):
    out, work = tmp_path / "scores.csv", tmp_path / "work"
    assert score(tree, out, "--work", work).exit_code == 0
    for options, word in ((["--estimator", "robust"], "options"), (["--bundle", "mnist"], "bundle")):
        refused = score(tree, out, "--work", work, *options)
        assert refused.exit_code == 4
        assert f"begun with other {word}" in refused.stderr
    assert "begun with other images" in score(tree / "a", out, "--work", work).stderr
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    )
    command, pipes = (
        [sys.executable, "-c", program, work / "lock"],
        {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
    )
    with subprocess.Popen(command, **pipes) as holder:
        holder.stdout.readline()
        assert "Another process works in" in score(tree, out, "--work", work).stderr
        holder.communicate(b"\n")
    assert score(tree, out, "--work", work).exit_code == 0


def test_a_full_disk_is_one_line_and_what_is_done_stays(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("service.offline.engines.work.SHARD_IMAGES", 8)
    monkeypatch.setattr("service.cli.score.LARGE", 10)
    replace, calls = os.replace, []

    def fill(source, target):
        if str(target).endswith(".parquet"):
            calls.append(target)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("service.offline.engines.latent_shards.os.replace", fill)
    out = tmp_path / "scores.csv"
    result = score(tree, out)
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == "error: No space left on device"
    assert "the same command goes on" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".scores.csv.work"]
    assert score(tree, out).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
