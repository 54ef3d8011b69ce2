"""The engine for large inputs: the numbers of a request, whatever the shards, and whenever it was ended."""

import errno
import os
import subprocess
import sys

import offline_runs
import pytest
from click.testing import CliRunner

from service.cli.main import cli
from service.offline.scores_table import read_scores

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return offline_runs.write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def expected(tree, tmp_path_factory):
    return offline_runs.score_by_requests(tree, tmp_path_factory.mktemp("expected") / "scores.parquet")


def score(tree, out, *options):
    arguments = ["score", tree, *offline_runs.OPTIONS, "--out", out, *options]
    return CliRunner().invoke(cli, [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("who", "latents", "scores"),
    [
        ("driver encoding", 1, 0),
        ("driver scoring", 8, 1),
        ("tree encoding", 1, 0),
        ("tree scoring", 8, 1),
        ("before a shard has its name", 2, 0),
        ("while scores are written", 8, 1),
    ],
)
def test_ended_at_any_moment_it_goes_on_with_equal_results(who, latents, scores, tree, expected, tmp_path):
    out, work = tmp_path / "scores.parquet", tmp_path / ".scores.parquet.work"
    ended = offline_runs.score(tree, out, work, 8, who)
    assert ended.returncode == -9, ended.stderr
    assert not out.exists()
    done = {path: path.stat().st_ino for path in work.glob("*/*.parquet")}
    assert len(list((work / "latents").glob("*.parquet"))) >= latents
    assert len(list((work / "scores").glob("*.parquet"))) == scores
    result = offline_runs.score(tree, out, work, 8, "nobody")
    assert result.returncode == 0, result.stderr
    assert read_scores(out) == expected
    assert len(list((work / "latents").glob("*"))) == 8
    assert {path: path.stat().st_ino for path in done} == done


def test_the_errors_that_a_screen_left_out_are_measured_where_they_decide(tree, expected, tmp_path):
    foreign = [row.id for row in expected.rows if row.is_foreign]
    assert foreign == ["b/noise.png"]
    work = tmp_path / "work"
    assert offline_runs.score(tree, tmp_path / "scores.parquet", work, 8, "nobody").returncode == 0
    shards = [parquet.read_table(path) for path in sorted((work / "latents").glob("*.parquet"))]
    rows = [
        (group, error is None and ratio != ratio)
        for shard in shards
        for group, error, ratio in zip(
            *(shard[name].to_pylist() for name in ("group", "error", "error_ratio")), strict=True
        )
    ]
    assert {group for group, is_open in rows if is_open} == {"a", "c"}, "the screen left them out, and nothing asks"
    assert read_scores(tmp_path / "scores.parquet") == expected


def test_killed_workers_are_replaced_and_no_image_is_lost(tree, expected, tmp_path):
    result = offline_runs.score(tree, tmp_path / "scores.parquet", tmp_path / "work", 8, "worker")
    assert result.returncode == 0, result.stderr
    assert read_scores(tmp_path / "scores.parquet") == expected


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
    monkeypatch.setattr("service.cli.commands.score.LARGE", 10)
    replace, calls = os.replace, []

    def fill(source, target):
        if str(target).endswith(".parquet"):
            calls.append(target)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("service.offline.atomic_files.os.replace", fill)
    out = tmp_path / "scores.csv"
    result = score(tree, out)
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1].endswith(".parquet: No space left on device")
    assert "the same command goes on" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".scores.csv.work"]
    assert score(tree, out).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
