"""The fair queue admits what is due first, within its capacity, and survives cancelled waiters."""

import asyncio
from contextlib import suppress

import pytest

from service.fair_queue import FairQueue

CHUNK, LEAST = 128, 16


class Works:
    """Pieces of work that wait to be admitted, begin in some order, and end when they are told to."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def start(self, name: str, rows: int, due: float) -> asyncio.Task[None]:
        self.ends[name] = asyncio.Event()

        async def work() -> None:
            async with self._queue.slot(rows, due):
                self.begun.append(name)
                await self.ends[name].wait()

        return asyncio.create_task(work())

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_small_request_overtakes_the_rest_of_a_large_one_and_not_what_is_overdue():
    works = Works(FairQueue(CHUNK))
    tasks = [works.start(f"large {at}", CHUNK, due=100.0 + at * 1.28) for at in range(4)]
    await settle()
    tasks.append(works.start("small", 1, due=101.5))  # after the second chunk is due, before the third
    await works.end("large 0", "large 1", "small", "large 2", "large 3")
    await asyncio.gather(*tasks)
    assert works.begun == ["large 0", "large 1", "small", "large 2", "large 3"]


async def test_no_more_rows_than_the_bound_are_let_through():
    queue = FairQueue(2 * CHUNK)
    at_work, most = 0, 0

    async def work(rows: int) -> None:
        nonlocal at_work, most
        async with queue.slot(rows, 0.0):
            at_work += rows
            most = max(most, at_work)
            await asyncio.sleep(0)
            at_work -= rows

    await asyncio.gather(*(work(rows) for rows in [CHUNK, 100, 60, CHUNK, 17, 200] * 20))
    assert 200 < most <= 2 * CHUNK
    assert at_work == 0


async def test_a_call_of_few_rows_counts_for_more_so_that_there_are_not_too_many():
    works = Works(FairQueue(4 * LEAST, LEAST))
    tasks = [works.start(str(number), 1, due=0.0) for number in range(6)]
    await settle()
    assert works.begun == ["0", "1", "2", "3"]
    await works.end("0", "1", "2", "3", "4", "5")
    await asyncio.gather(*tasks)


async def test_more_rows_than_the_bound_go_alone():
    works = Works(FairQueue(CHUNK))
    task = works.start("huge", 10 * CHUNK, due=0.0)
    await settle()
    assert works.begun == ["huge"]
    await works.end("huge")
    await task


@pytest.mark.parametrize("moment", ["while it waits", "when its turn has just come", "at work"])
async def test_what_is_cancelled_gives_its_turn_to_the_next(moment):
    works = Works(FairQueue(CHUNK))
    first = works.start("first", CHUNK, due=0.0)
    await settle()
    second, third = works.start("second", CHUNK, due=1.0), works.start("third", CHUNK, due=2.0)
    await settle()
    if moment == "while it waits":
        second.cancel()
        await works.end("first")
    elif moment == "when its turn has just come":
        works.ends["first"].set()
        while not first.done():
            await asyncio.sleep(0)
        second.cancel()  # let in by the first, and not yet awake
    else:
        await works.end("first")
        second.cancel()
    with suppress(asyncio.CancelledError):
        await second
    await settle()
    assert works.begun == (["first", "second", "third"] if moment == "at work" else ["first", "third"])
    await works.end("third")
    await asyncio.gather(first, third)


async def test_a_head_that_was_cancelled_does_not_hold_up_those_behind_it():
    works = Works(FairQueue(CHUNK))
    first = works.start("first", CHUNK // 2, due=0.0)
    wide, narrow = works.start("wide", CHUNK, due=1.0), works.start("narrow", CHUNK // 2, due=2.0)
    await settle()
    assert works.begun == ["first"]  # the wide one is due next, and nobody passes it
    wide.cancel()
    await settle()
    assert works.begun == ["first", "narrow"]
    await works.end("first", "narrow")
    await asyncio.gather(first, narrow)
