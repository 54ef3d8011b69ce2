"""Decoding in processes of their own: the same rows, within what was sent, whatever becomes of a process."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

import bodies
import joblib
import numpy as np
import psutil
import pytest
from bombs import BOMBS, png
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.decoding import jobs, worker_group
from service.decoding import pool as pools
from service.decoding.pool import DecodePool, LocalDecoder
from service.errors import Overloaded, TooLarge, UndecodableImage
from service.images.decode import Upload, read_rows
from service.images.decode_budget import FREE_BYTES, DecodeBudget
from service.images.limits import MIB, Limits
from service.images.sample_range import SampleRange
from service.settings import Settings

SPEC = ImageSpec(height=64, width=64, channels=3)
ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 20


@pytest.fixture
async def pool():
    pool = DecodePool(Settings())
    pool.start()
    yield pool
    pool.close()


def uploads(contents):
    return [Upload(str(number), lambda content=content: content) for number, content in enumerate(contents)]


def budget(sent_bytes=0, **settings):
    return DecodeBudget.of(Settings(**settings), sent_bytes)


def workers():
    children = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # one that ends meanwhile
            children += [child] if "service.decoding.worker" in child.cmdline() else []
    return children


def ignores_sigterm(worker):
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (ignored,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored, 16) >> signal.SIGTERM - 1 & 1)


async def until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.fixture
def mixed(images):
    """Files, pixels of the right shape and of others, and what is no image."""
    files = [bodies.encoded(image, format) for image in images[:4] for format in ("PNG", "JPEG", "WEBP", "TIFF")]
    wide = np.repeat(images[4], 2, axis=1)
    return [*files, images[5], b"broken", wide, bodies.encoded(wide), images[6][..., 0], b"", *files[:3]]


async def test_rows_are_those_of_one_process(pool, mixed):
    expected = read_rows(uploads(mixed), SPEC, "fit", Limits(10**9))
    for decoder in (pool, LocalDecoder(Settings())):
        rows = await decoder.read(uploads(mixed), SPEC, "fit", budget())
        assert np.array_equal(rows.pixels, expected.pixels)
        assert np.array_equal(rows.sizes, expected.sizes)
        assert list(rows.errors) == list(expected.errors)
        for at, error in expected.errors.items():
            assert (type(rows.errors[at]), str(rows.errors[at])) == (type(error), str(error))


@pytest.mark.parametrize("at_once", [0, 10**9])
async def test_deep_images_wait_until_they_are_measured(pool, monkeypatch, images, at_once):
    """Small ones in the first job, large ones in a second; the pool and this process agree."""
    monkeypatch.setattr(pools, "AT_ONCE_BYTES", at_once)
    deep = [image.astype(np.uint16) << 4 for image in images[:3]]
    contents = [images[3], deep[0], bodies.encoded(images[4]), b"broken", deep[1], (images[5] / 255).astype(np.float32)]
    for decoder in (pool, LocalDecoder(Settings())):
        spent = budget()
        first = await decoder.read(uploads(contents), SPEC, "fit", spent)
        assert (list(first.unknown), list(first.errors)) == ([1, 4, 5], [3])
        assert np.array_equal(first.pixels, images[[3, 4]])
        bytes_before = spent.bytes
        measured = await decoder.read(uploads(contents), SPEC, "fit", spent, SampleRange(), measures=True)
        levels = np.stack(deep[:2])
        assert measured.extents["uint16"] == (levels.min(), levels.max())
        assert measured.extents["float32"][1] <= 1
        assert spent.bytes > bytes_before > 0
        known = SampleRange("file", measured.extents)
        rows = await decoder.read(uploads(contents), SPEC, "fit", spent.again(), known)
        assert (list(rows.unknown), list(rows.errors)) == ([], [3])
        assert np.array_equal(rows.pixels, images[[3, 0, 4, 1, 5]])


async def test_notes_and_pages_come_back_from_a_process(pool):
    frames = [Image.new("RGBA", (64, 64), colour) for colour in ((200, 0, 0, 0), (0, 0, 200, 255))]
    frames[0].save(file := io.BytesIO(), "PNG", save_all=True, append_images=frames[1:])
    several = [Upload("a", file.getvalue), Upload("b", file.getvalue, page=1)]
    rows = await pool.read(several, SPEC, "fit", budget())
    assert rows.notes == {0: ("pages", "unused_alpha")}
    assert rows.pixels[:, 9, 9].tolist() == [[200, 0, 0], [0, 0, 200]]


async def test_larger_images_are_decoded_once_they_are_counted(pool, monkeypatch):
    monkeypatch.setattr(pools, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(pools, "LARGE_BYTES", 5 * MIB)
    files = [png(side) for side in (64, 1000, 2000, 64, 1000)]
    decode_budget = budget(sum(map(len, files)))
    rows = await pool.read(uploads([*files, b"broken"]), SPEC, "fit", decode_budget)
    assert (rows.pixels.shape, list(rows.errors)) == ((5, 64, 64, 3), [5])
    assert decode_budget.is_admitted
    assert decode_budget.bytes == 4 * (2 * 64**2 + 2 * 1000**2 + 2000**2)
    assert 0 < decode_budget.seconds < decode_budget.max_seconds


async def test_files_that_are_large_for_their_length_fail_alone(pool, images):
    side = 8000
    rows = await pool.read(uploads([images[0], BOMBS["WebP, lossless"](side)]), SPEC, "fit", budget())
    assert len(rows.pixels) == 1
    assert "8000 x 8000" in rows.errors[1].message
    assert isinstance(rows.errors[1], TooLarge)


async def test_a_request_of_too_many_is_refused_before_any_is_decoded(pool):
    file = png(2900)
    decode_budget = budget(sent_bytes=40 * len(file))
    with pytest.raises(TooLarge, match="Decoding the images takes"):
        await pool.read(uploads([file] * 40), SPEC, "fit", decode_budget)
    assert decode_budget.seconds < 0.1  # each of them takes as much
    with pytest.raises(TooLarge):
        await LocalDecoder(Settings()).read(uploads([file] * 40), SPEC, "fit", budget(40 * len(file)))


async def test_who_sends_more_may_decode_more(pool):
    file = png(2500)
    sent = 5 * MIB
    rows = await pool.read(uploads([file] * 20), SPEC, "fit", budget(sent, decode_seconds=10))
    assert len(rows.pixels) == 20
    assert budget(sent).max_bytes == 2 * (FREE_BYTES + 96 * sent)


async def test_what_waits_is_bounded_and_who_was_let_in_goes_on(monkeypatch):
    pool = DecodePool(Settings(max_decode_bytes_in_flight=100 * MIB))
    pool.start()
    try:
        large = png(4000)  # 61 MiB
        first, second = budget(10**6), budget(10**6)
        under_way = asyncio.create_task(pool.read(uploads([large]), SPEC, "fit", first))
        await until(lambda: first.is_admitted)
        with pytest.raises(Overloaded, match="waiting"):
            await pool.read(uploads([large]), SPEC, "fit", second)
        assert len((await pool.read(uploads([png(64)]), SPEC, "fit", second)).pixels) == 1, "small ones need no room"
        assert len((await pool.read(uploads([large]), SPEC, "fit", first)).pixels) == 1
        assert len((await under_way).pixels) == 1
        assert len((await pool.read(uploads([large]), SPEC, "fit", second)).pixels) == 1
    finally:
        pool.close()


async def test_what_takes_too_long_is_ended_for_real(pool, images):
    """Whatever the header says: the time limit holds inside the decoder."""
    decode_budget = budget(10**6)
    decode_budget.max_seconds = 0.05
    with pytest.raises(TooLarge, match="CPU"):
        await pool.read(uploads([BOMBS["WebP, lossy"](2400)]), SPEC, "fit", decode_budget)
    rows = await pool.read(uploads([images[0], bodies.encoded(images[1])]), SPEC, "fit", budget())
    assert len(rows.pixels) == 2


def end_workers(monkeypatch, poison, number, times=1000):
    """Send a signal to the worker of a job with a certain file, the first few times."""
    do, left = worker_group.Worker.do, [None] * times

    def ended_by_poison(worker, job):
        if poison not in job.contents or not left:
            return do(worker, job)
        left.pop()
        connection = worker.start()
        os.kill(worker._process.pid, number)
        with monkeypatch.context() as patch:  # otherwise `do` may see that the process ended, and start another
            patch.setattr(worker, "start", lambda: connection)
            return do(worker, job)

    monkeypatch.setattr(worker_group.Worker, "do", ended_by_poison)


async def test_an_image_whose_worker_was_killed_from_outside_has_another_try(pool, images, monkeypatch):
    file = bodies.encoded(images[0])
    with monkeypatch.context() as patch:
        end_workers(patch, file, signal.SIGKILL, times=1)
        rows = await pool.read(uploads([file]), SPEC, "fit", budget(decode_seconds=60))
    assert (len(rows.pixels), rows.errors) == (1, {})
    end_workers(monkeypatch, file, signal.SIGKILL)
    rows = await pool.read(uploads([file]), SPEC, "fit", budget(decode_seconds=60))
    assert "ended the process" in rows.errors[0].message


async def test_an_image_that_ends_its_process_fails_alone(pool, images, monkeypatch):
    """As one would that finds a hole in a decoder."""
    poison = b"poison"
    end_workers(monkeypatch, poison, signal.SIGSEGV)
    good = [bodies.encoded(image) for image in images[:5]]
    rows = await pool.read(uploads([*good[:3], poison, *good[3:], b"broken"]), SPEC, "fit", budget(decode_seconds=60))
    assert np.array_equal(rows.pixels, images[:5])
    assert list(rows.errors) == [3, 6]
    assert isinstance(rows.errors[3], UndecodableImage)
    assert "ended the process" in rows.errors[3].message
    with pytest.raises(TooLarge, match="CPU"):  # every process that ends costs the request some of its time
        await pool.read(uploads([poison] * 20), SPEC, "fit", budget())


async def test_a_worker_that_was_killed_while_idle_is_started_again(pool, images):
    await pool.read(uploads([bodies.encoded(images[0])]), SPEC, "fit", budget())
    for worker in workers():
        worker.kill()
        worker.wait()
    for _ in range(3):
        rows = await pool.read(uploads([bodies.encoded(images[0])]), SPEC, "fit", budget())
        assert (len(rows.pixels), rows.errors) == (1, {})


async def test_who_leaves_leaves_nothing_behind(pool, images):
    for _ in range(3):
        decode_budget = budget(10**6)
        reading = asyncio.create_task(pool.read(uploads([png(4000)]), SPEC, "fit", decode_budget))
        await until(lambda decode_budget=decode_budget: decode_budget.is_admitted)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    rows = await pool.read(uploads([png(4000), bodies.encoded(images[0])]), SPEC, "fit", budget(10**6))
    assert len(rows.pixels) == 2


async def test_it_is_alive_while_its_workers_answer(pool, monkeypatch):
    monkeypatch.setattr(pools, "PROBE_SECONDS", 0.5)
    await until(lambda: len(workers()) >= 1)
    monkeypatch.setattr(pools, "PROBE_SECONDS", WAIT_SECONDS)
    assert await pool.is_alive()
    stopped = workers()
    for worker in stopped:
        worker.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(pools, "PROBE_SECONDS", 0.2)
    await asyncio.sleep(0.3)
    assert not await pool.is_alive()
    for worker in stopped:
        worker.send_signal(signal.SIGCONT)
    monkeypatch.setattr(pools, "PROBE_SECONDS", WAIT_SECONDS)
    assert await pool.is_alive()


async def test_workers_take_no_notice_of_signals_that_are_meant_for_the_service(pool, images):
    await pool.read(uploads([bodies.encoded(images[0])]), SPEC, "fit", budget())
    # One that is only starting does not know yet.
    await until(lambda: sum(map(ignores_sigterm, workers())) == joblib.cpu_count())
    before = {worker.pid for worker in workers()}
    for worker in workers():
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGINT)
    rows = await pool.read(uploads([bodies.encoded(images[0])]), SPEC, "fit", budget())
    assert len(rows.pixels) == 1
    assert {worker.pid for worker in workers()} == before


async def test_closing_ends_every_worker():
    pool = DecodePool(Settings())
    pool.start()
    await pool.read(uploads([png(1000)]), SPEC, "fit", budget())
    reading = asyncio.create_task(pool.read(uploads([png(4800)]), SPEC, "fit", budget(10**6)))
    await asyncio.sleep(0.1)
    processes = workers()
    assert processes
    pool.close()
    _, alive = psutil.wait_procs(processes, WAIT_SECONDS)
    assert alive == []
    reading.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await reading


PROGRAM = """
import asyncio, sys
sys.path[:0] = {paths!r}
from bombs import png
from service.images.decode_budget import DecodeBudget
from service.decoding.pool import DecodePool
from service.decoding.jobs import RowShape
from service.images.decode import Upload
from service.images.sample_range import SampleRange
from service.settings import Settings

async def main():
    pool, large = DecodePool(Settings()), png(4800)
    pool.start()
    await pool.is_alive()
    while True:
        print("ready", flush=True)
        await pool.read([Upload("a", lambda: large)], RowShape(64, 64, 3), "fit", DecodeBudget.of(Settings(), 10**6))

asyncio.run(main())
"""


def test_workers_end_with_the_process_that_started_them():
    """However that ends, and although they are in the middle of a job."""
    program = PROGRAM.format(paths=[str(ROOT), str(ROOT / "tests" / "support")])
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        time.sleep(0.2)
        started = psutil.Process(process.pid).children()
        assert len(started) >= 2
        os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(started, WAIT_SECONDS)
    assert alive == []


async def test_a_request_of_many_images_that_are_too_large_is_given_up(pool, images):
    """A few of them fail alone; of many, the rest is not even looked at."""
    large, good = BOMBS["WebP, lossless"](8000), bodies.encoded(images[0])
    rows = await pool.read(uploads([*[large] * 10, good]), SPEC, "fit", budget())
    assert (len(rows.pixels), len(rows.errors)) == (1, 10)
    decode_budget = budget()
    with pytest.raises(TooLarge, match="Decoding the images takes 196 MiB or more"):
        await pool.read(uploads([*[large] * 128, good]), SPEC, "fit", decode_budget)


async def test_a_request_of_large_images_is_refused_by_first_bytes_alone(pool):
    """The rest is not unpacked, and no worker sees it."""
    file, unpacked = BOMBS["WebP, lossless"](8000), []
    decode_budget = budget()
    for decoder in (pool, LocalDecoder(Settings())):
        unpacked.clear()
        bombs = [Upload(str(number), lambda number=number: unpacked.append(number) or file) for number in range(128)]
        with pytest.raises(
            TooLarge, match="Decoding the images takes 196 MiB or more; of a body of 0 bytes at most 192"
        ):
            await decoder.read(bombs, SPEC, "fit", decode_budget)
        assert len(unpacked) == 49  # each counts as 4 MiB
    assert decode_budget.seconds == decode_budget.bytes == 0


def test_the_file_of_several_pages_is_sent_once():
    file, other = bytes(10 * jobs.SEPARATE_BYTES), np.zeros((2, 2), np.uint8)
    limits = Limits(1000)
    job = jobs.Job([file, other, file, b"small", b"small"], jobs.RowShape(1, 1, 1), "fit", limits, None, 0, 1)
    here, there = Pipe()
    sending = threading.Thread(target=jobs.send_job, args=(here, job))
    sending.start()
    received = jobs.receive_job(there)
    sending.join()
    assert received.contents[0] is received.contents[2]
    assert [bytes(each) for each in received.contents] == [file, bytes(4), file, b"small", b"small"]
    assert not there.poll()
    assert pools._count_sent_bytes([file, file, other, file]) == [len(file), 0, 4, len(file)]
