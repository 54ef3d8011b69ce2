"""Time limits of requests. One look at all of them every TICK_SECONDS takes less time than a timer for each.

Most requests are answered long before any limit: what a limit costs is to be set and taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

TICK_SECONDS = 0.05


class CoarseTimer:
    """Calls functions after some seconds, at most TICK_SECONDS late. While nothing waits, it does not look."""

    def __init__(self) -> None:
        self._calls: dict[object, tuple[float, Callable[[], object]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # whose next look is due

    def call_later(self, seconds: float, function: Callable[[], object]) -> object:
        """Call `function` in the running event loop after `seconds`. Return what `cancel` takes."""
        loop, call = asyncio.get_running_loop(), object()
        if self._loop is not loop:  # also where another loop has ended with calls left
            self._loop, self._calls = loop, {}
            loop.call_later(TICK_SECONDS, self._look)
        self._calls[call] = loop.time() + seconds, function
        return call

    def cancel(self, call: object) -> None:
        """Take back a call, unless it has been made."""
        self._calls.pop(call, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            return
        now = loop.time()
        try:
            for call in [call for call, (due, _) in self._calls.items() if due <= now]:
                if call in self._calls:  # no other call has just taken it back
                    self._calls.pop(call)[1]()
        finally:  # what is left after an error is called at the next look
            if self._calls:
                loop.call_later(TICK_SECONDS, self._look)
            else:
                self._loop = None


timer = CoarseTimer()


class TimeLimit:
    """Ends a block that takes too long with TimeoutError, as `asyncio.timeout` does, at most TICK_SECONDS late."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._is_over = seconds, False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "this runs in a task"
        self._task, self._cancelling = task, task.cancelling()
        self._call = timer.call_later(self._seconds, self._end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        timer.cancel(self._call)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()
