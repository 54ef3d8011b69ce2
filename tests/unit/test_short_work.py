"""Where work runs: small work in one thread, one piece after the other, whatever else runs beside it."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from service.short_work import SMALL_IMAGES, Lane

WAIT_SECONDS = 10
request_id: ContextVar[str] = ContextVar("request_id", default="")


class Work:
    """Pieces of work that count how many run at a time, in which order and in which threads."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.threads: set[int] = set()
        self._running = self.most_running = 0

    def run(self, number: int) -> int:
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        threading.Event().wait(0.001)  # gives up Python's lock, as numpy does
        self.order.append(number)
        self.threads.add(threading.get_ident())
        self._running -= 1
        return number


async def test_small_work_runs_piece_by_piece_in_the_order_of_its_coming():
    lane, work = Lane(), Work()
    results = await asyncio.gather(*(lane.run(SMALL_IMAGES, work.run, number) for number in range(20)))
    assert results == work.order == list(range(20))
    assert work.most_running == len(work.threads) == 1
    assert work.threads != {threading.get_ident()}


async def test_small_work_does_not_wait_for_large_work():
    lane, small_is_done = Lane(), threading.Event()
    large = [asyncio.create_task(lane.run(SMALL_IMAGES + 1, small_is_done.wait, WAIT_SECONDS)) for _ in range(2)]
    await asyncio.sleep(0)  # they have begun
    assert await lane.run(1, lambda: "small") == "small"
    assert not any(task.done() for task in large)
    small_is_done.set()
    assert await asyncio.gather(*large) == [True, True]


@pytest.mark.parametrize("images", [1, SMALL_IMAGES + 1])
async def test_work_sees_the_context_of_its_request_and_raises_to_it(images):
    def fail() -> None:
        raise ValueError(request_id.get())

    request_id.set("abc")
    with pytest.raises(ValueError, match="abc"):
        await Lane().run(images, fail)


async def test_cancelled_work_that_has_not_begun_never_runs():
    lane, go_on, work = Lane(), threading.Event(), Work()
    first = asyncio.create_task(lane.run(1, go_on.wait, WAIT_SECONDS))
    second, third = (asyncio.create_task(lane.run(1, work.run, number)) for number in (2, 3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go_on.set()
    await asyncio.gather(first, third)
    assert work.order == [3]


async def test_a_lane_may_count_in_another_unit():
    lane, work = Lane(1000), Work()
    await asyncio.gather(*(lane.run(1000, work.run, number) for number in range(20)))
    assert work.most_running == len(work.threads) == 1
    await lane.run(1001, work.run, 20)
    assert len(work.threads) == 2
