"""Adaptive batches: rows of several requests in one tile, each request with its own rows back, and its own error."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from service.inference.adaptive_batches import AdaptiveBatches, BatchHooks

TILE = 4


class Recorder(BatchHooks):
    def __init__(self) -> None:
        self.waited: list[str] = []

    def observe_wait(self, network: str, seconds: float) -> None:
        assert seconds >= 0
        self.waited.append(network)


class Held:
    """A network that doubles its rows, and waits for `release` first. Rows below 0 are an error."""

    def __init__(self) -> None:
        self.tiles: list[tuple[str, list[float]]] = []
        self.release = threading.Event()

    def run(self, network, rows):
        self.tiles.append((network, rows.tolist()))
        assert self.release.wait(60)
        if (rows < 0).any():
            raise ValueError("below 0")
        return rows * 2, -rows


def batches_of(held: Held, threads: int = 1, hooks: BatchHooks | None = None) -> AdaptiveBatches:
    return AdaptiveBatches(held.run, TILE, threads, lambda network, rows: rows, hooks)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_rows_that_wait_are_merged_into_tiles_and_given_back():
    held, recorder = Held(), Recorder()
    batches = batches_of(held, hooks=recorder)
    first = asyncio.create_task(batches.run("encode", np.array([1.0])))
    await until(lambda: held.tiles)
    later = [asyncio.create_task(batches.run("encode", np.arange(start, start + 3.0))) for start in (10, 20, 30)]
    other = asyncio.create_task(batches.run("decode", np.array([5.0])))
    await until(lambda: len(batches._waiting) == 4)
    held.release.set()
    doubled, negative = await first
    assert (doubled.tolist(), negative.tolist()) == ([2], [-1])
    for start, (doubled, negative) in zip((10, 20, 30), await asyncio.gather(*later), strict=True):
        assert doubled.tolist() == [2 * start, 2 * start + 2, 2 * start + 4]
        assert (negative * -2 == doubled).all()
    assert (await other)[0].tolist() == [10]
    encoded = [rows for network, rows in held.tiles if network == "encode"]
    assert encoded == [[1], [10, 11, 12, 20], [21, 22, 30, 31], [32]]
    assert sorted(recorder.waited) == ["decode", *["encode"] * 4]


@pytest.mark.parametrize(("is_padded", "sizes"), [(False, [16, 20]), (True, [8, 32])])
async def test_threads_share_the_rows_that_wait_unless_padding_would_fill_their_tiles(is_padded, sizes):
    held = Held()
    batches = AdaptiveBatches(held.run, 32, 2, lambda network, rows: 32 if is_padded else rows)
    work = asyncio.create_task(batches.run("encode", np.arange(40.0)))
    await until(lambda: len(held.tiles) == 2)
    assert sorted(len(rows) for _, rows in held.tiles) == sizes
    held.release.set()
    assert (await work)[0].tolist() == list(range(0, 80, 2))


async def test_more_threads_start_only_for_more_tiles():
    held = Held()
    batches = batches_of(held, threads=2)
    works = [asyncio.create_task(batches.run("encode", np.array([float(number)]))) for number in range(3)]
    await until(lambda: held.tiles)
    assert batches._at_work == 1
    works.append(asyncio.create_task(batches.run("encode", np.arange(9.0))))
    await until(lambda: len(held.tiles) == 2)
    held.release.set()
    assert [len(doubled) for doubled, _ in await asyncio.gather(*works)] == [1, 1, 1, 9]


async def test_an_error_is_told_to_all_that_share_the_tile_and_to_nobody_else():
    held = Held()
    batches = batches_of(held)
    held.release.set()
    with pytest.raises(ValueError, match="below 0"):
        await batches.run("encode", np.array([-1.0]))
    assert (await batches.run("encode", np.array([1.0])))[0].tolist() == [2]


async def test_rows_of_a_request_that_has_ended_are_left_out():
    held = Held()
    batches = batches_of(held)
    first = asyncio.create_task(batches.run("encode", np.array([1.0])))
    await until(lambda: held.tiles)
    gone = asyncio.create_task(batches.run("encode", np.array([2.0])))
    last = asyncio.create_task(batches.run("encode", np.array([3.0])))
    await until(lambda: len(batches._waiting) == 2)
    gone.cancel()
    await asyncio.wait([gone])
    held.release.set()
    await asyncio.gather(first, last)
    assert [rows for _, rows in held.tiles] == [[1], [3]]


def test_several_event_loops_share_the_threads():
    held = Held()
    held.release.set()
    batches, results = batches_of(held, threads=2), {}

    def run(number: int) -> None:
        results[number] = asyncio.run(batches.run("encode", np.full(10, float(number))))[0].tolist()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [2.0 * number] * 10 for number in range(8)}
