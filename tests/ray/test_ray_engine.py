"""The engine of Ray: the numbers of one request, whatever the actors and shards, and whoever was killed. `make ray`."""

import pytest
from offline_runs import score, score_by_requests, write_tree

from service.offline.scores_table import read_scores

pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")

RAY = ("--engine", "ray")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def expected(tree, tmp_path_factory):
    return score_by_requests(tree, tmp_path_factory.mktemp("expected") / "scores.parquet")


@pytest.mark.parametrize(("actors", "images"), [(1, 8), (3, 16)])
def test_numbers_are_those_of_a_request_whatever_actors_and_blocks(actors, images, tree, expected, tmp_path):
    out = tmp_path / "scores.parquet"
    result = score(tree, out, tmp_path / "work", images, "nobody", *RAY, "--actors", actors, "--show", 0)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[0].startswith("unreadable"), "Ray's own messages are no part of the answer"
    assert "2 unreadable" in result.stderr.splitlines()[-1]
    assert read_scores(out) == expected


def test_lost_workers_of_both_passes_are_survived(tree, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("MARKER", str(tmp_path / "killed"))
    result = score(tree, tmp_path / "scores.parquet", tmp_path / "work", 16, "worker", *RAY)
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
    ended = score(tree, out, work, 16, who, *RAY)
    assert ended.returncode == -9, ended.stderr
    assert not out.exists()
    files = list((work / kind).glob("*.parquet"))
    assert files
    # Latents of group b are written again, with the errors that its foreign image asks for.
    done = {path.name: path.stat().st_ino for path in files if kind == "scores" or "b" not in read_groups(path)}
    # Engines share what is done.
    result = score(tree, out, work, 16, "nobody", *(("--engine", "local") if who == "tree scoring" else RAY))
    assert result.returncode == 0, result.stderr
    assert read_scores(out) == expected
    assert {name: (work / kind / name).stat().st_ino for name in done} == done


def read_groups(path):
    return parquet.read_table(path, columns=["group"])["group"].to_pylist()


def test_what_no_actor_can_get_is_one_line(tree, tmp_path):
    result = score(tree, tmp_path / "scores.csv", tmp_path / "work", 16, "nobody", *RAY, "--actor-gpus", 64)
    assert result.returncode == 4
    assert result.stderr.startswith("error: An actor takes 64 GPU, and no machine of the cluster has more")
    assert result.stderr.count("\n") == 1


def test_an_interruption_is_one_line_and_what_is_done_is_kept(tree, tmp_path):
    result = score(tree, tmp_path / "scores.csv", tmp_path / "work", 16, "interrupt encoding", *RAY)
    assert result.returncode == 130, result.stderr
    assert result.stderr.splitlines()[-2:] == [
        f"what is done is kept in {tmp_path / 'work'}: the same command goes on",
        "error: interrupted",
    ]
    assert list((tmp_path / "work/latents").glob("*.parquet"))
    assert not (tmp_path / "scores.csv").exists()
