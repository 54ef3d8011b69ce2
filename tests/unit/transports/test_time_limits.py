"""Time limits end what they limit, as `asyncio.timeout` does, and leave everything else alone."""

import asyncio

import pytest

from service.transports import time_limits
from service.transports.time_limits import CoarseTimer, TimeLimit


async def test_what_takes_too_long_ends_in_a_timeout_and_its_task_goes_on():
    with pytest.raises(TimeoutError), TimeLimit(0.01):
        await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_the_shorter_of_two_limits_ends_its_own_block_only():
    with TimeLimit(60):
        with pytest.raises(TimeoutError), TimeLimit(0.01):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_what_is_done_in_time_is_left_alone():
    with TimeLimit(0.2):
        await asyncio.sleep(0)
    await asyncio.sleep(0.3 + time_limits.TICK_SECONDS)
    with pytest.raises(KeyError), TimeLimit(60):
        raise KeyError


async def test_a_task_that_is_cancelled_by_others_is_cancelled_whether_it_is_late_or_not():
    async def work(seconds):
        with TimeLimit(seconds):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(work(seconds)) for seconds in (60, 0.01)]
    await asyncio.sleep(0)
    assert tasks[0].cancel()
    time_limits.timer._calls.copy().popitem()[1][1]()  # the second is late in the moment in which it is cancelled
    tasks[1].cancel()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_timer_looks_only_while_calls_wait(monkeypatch):
    monkeypatch.setattr(time_limits, "TICK_SECONDS", 0.01)
    timer, called = CoarseTimer(), []
    taken_back = timer.call_later(0, lambda: called.append("taken back"))
    timer.call_later(0, lambda: called.append("made"))
    timer.cancel(taken_back)
    timer.cancel(taken_back)
    await asyncio.sleep(0.1)
    assert (called, timer._loop) == (["made"], None)


async def test_a_call_that_fails_or_takes_back_another_does_not_stop_the_timer(monkeypatch):
    monkeypatch.setattr(time_limits, "TICK_SECONDS", 0.01)
    timer, called, failed = CoarseTimer(), [], []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context["exception"]))
    timer.call_later(0, lambda: 1 / 0)
    timer.call_later(0, lambda: timer.cancel(last))
    last = timer.call_later(0, lambda: called.append("taken back"))
    timer.call_later(0, lambda: called.append("at once"))
    timer.call_later(0.02, lambda: called.append("later"))
    await asyncio.sleep(0.1)
    assert (called, timer._loop, [type(error) for error in failed]) == (["at once", "later"], None, [ZeroDivisionError])


def test_a_loop_that_ended_with_calls_left_does_not_stop_the_next_one():
    timer, called = CoarseTimer(), []

    async def set_one(seconds):
        timer.call_later(0, lambda: called.append(seconds))
        await asyncio.sleep(seconds)

    asyncio.run(set_one(0))
    asyncio.run(set_one(4 * time_limits.TICK_SECONDS))
    assert called == [4 * time_limits.TICK_SECONDS]
