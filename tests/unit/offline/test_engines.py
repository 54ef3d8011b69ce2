"""Steps and engines: how the work is cut, and what an engine of other machines says of errors. No test needs Ray."""

import errno
import json
import signal

import numpy as np
import pytest
from click.testing import CliRunner

from service.api.options import ScoreOptions
from service.cli.main import cli
from service.errors import BundleError, InvalidInput, UndecodableImage
from service.offline.engines import ray_data
from service.offline.engines.ray_data import Actor, ActorPool, keep_interruptions, start_ray
from service.offline.engines.work import Work
from service.offline.engines.work_folder import WorkFolder
from service.offline.inputs.source_table import TableBuilder
from service.offline.inputs.stored_files import Kind


def make_work(sizes, shard_images, path):
    builder = TableBuilder()
    for group, size in enumerate(sizes):
        for number in range(size):
            builder.add(Kind.FILE, f"/x/{group}", f"{number}.png", group=str(group))
    sources, _ = builder.build(0, lambda *_: "")
    return Work(None, ScoreOptions(), [], sources, WorkFolder(path), shard_images)


@pytest.mark.parametrize("shard_images", [1, 3, 8, 100])
def test_shards_and_partitions_cover_all_images_in_order(shard_images, tmp_path):
    sizes = np.random.default_rng(0).integers(1, 12, 30).tolist()
    work = make_work(sizes, shard_images, tmp_path)
    ids = list(work.sources.ids)
    assert [id_ for number in work.shards for id_ in work.take_shard(number).ids] == ids
    spans = [span for partition in work.partitions for span in partition]
    assert spans == work.spans
    assert [stop - start for _, start, stop in spans] == sizes
    assert sum(work.count_images(number) for number in range(len(work.partitions))) == len(ids)
    # No partition is smaller than a shard, but for the last one, nor goes on once it is as large.
    for number, partition in enumerate(work.partitions):
        assert work.count_images(number) >= shard_images or number == len(work.partitions) - 1
        assert work.count_images(number) - (partition[-1][2] - partition[-1][1]) < shard_images
    for group, start, stop in spans:
        assert work.find_span(start) == work.find_span(stop - 1) == (group, start, stop)
        found = [
            id_
            for path, rows in work.find_latents(start, stop)
            for id_ in list(work.take_shard(int(path.stem)).ids)[rows]
        ]
        assert found == ids[start:stop]


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("a message", "a hint"),
        BundleError("no bundle"),
        UndecodableImage("ü"),
        OSError(errno.ENOSPC, "No space left on device", "/x"),
        OSError("no number"),
    ],
)
def test_an_error_of_an_actor_is_raised_by_the_driver(error):
    class Failing(Actor):
        def prepare(self):
            async def step(number):
                if number:
                    raise error

            return step

    done = Failing(None, 1.0)({"number": np.array([0, 1])})
    assert (done["number"], done["error"][0]) == ([0, 1], "")
    raised = ray_data._to_error(json.loads(done["error"][1]))
    assert type(raised) is type(error)
    assert str(raised) == str(error) or "no number" in str(raised)


def test_without_ray_the_engine_says_what_it_takes(monkeypatch):
    monkeypatch.setattr(ray_data, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="takes Ray") as error:
        start_ray(ActorPool())
    assert error.value.hint == 'pip install "misfit[ray]"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "ray"], "takes a folder that all machines see"),
        (["--engine", "local", "--url", "http://127.0.0.1:9"], "A service keeps nothing"),
        (["--engine", "dask"], "is not one of"),
        (["--actor-cpus", "0"], "--actor-cpus"),
        (["--engine", "ray", "--out", "x.csv", "--json"], "up to 10,000 images"),
    ],
)
def test_engines_that_cannot_work_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(b"nothing")
    result = CliRunner().invoke(cli, ["score", "x.png", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["x.png"]


def test_an_interruption_that_ray_forgets_is_raised_again():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with keep_interruptions() as check:
            check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                check()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_interruptions_that_is_there_stays():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with keep_interruptions() as check:
            signal.raise_signal(signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
