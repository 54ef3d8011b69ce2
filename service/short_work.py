"""Where the work of a request runs: at once, in one thread for small work of its kind, or in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Work on so many images, or on a message of so many bytes, takes about a millisecond: handing it over to a thread would
# take longer.
SHORT_IMAGES = 32
SHORT_BYTES = 256 * 1024
# Parsing a body that costs so many bytes takes some 40 ms.
MEDIUM_BYTES = 4 * 1024 * 1024
# The statistics of so many images take some 20 ms, and those of three images nearly as long.
SMALL_IMAGES = 64


async def run(is_short: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns: it runs in a thread, or at once where it `is_short`."""
    if is_short:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


class Lane:
    """One thread for all small work of one kind.

    Statistics of few images are thousands of short calls of numpy, and parsing is Python alone. Several threads at them
    would hand Python's lock to each other all the time, which takes CPU as well, and the event loop would wait for the
    lock behind each of them. Large work runs in a thread of its own, so that no small work waits for it.
    """

    def __init__(self, largest: int = SMALL_IMAGES) -> None:
        """Make a lane for work of a size up to `largest`: by default images.

        Its thread starts with the first work. It may serve several event loops.
        """
        self._thread, self._largest = ThreadPoolExecutor(1, "small_work"), largest

    async def run(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function`, which does work of that size, returns. It sees the caller's context variables."""
        if size > self._largest:
            return await asyncio.to_thread(function, *args, **kwargs)
        call = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
