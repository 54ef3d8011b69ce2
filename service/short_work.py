"""Where the work of a request runs: at once, in one thread for all small work, or in a thread of its own."""

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
SHORT_IMAGES = 16
SHORT_BYTES = 128 * 1024
# The statistics of so many images take some 20 ms, and those of three images nearly as long.
SMALL_IMAGES = 64


async def run(is_short: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns: it runs in a thread, or at once where it `is_short`."""
    if is_short:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


class Lane:
    """One thread for all work on few images.

    Statistics of few images are thousands of short calls of numpy. Several threads at them would hand Python's lock to
    each other all the time, which takes CPU as well. Work on many images runs in a thread of its own, so that no small
    work waits for it.
    """

    def __init__(self) -> None:
        """Make a lane whose thread starts with the first work. It may serve several event loops."""
        self._thread = ThreadPoolExecutor(1, "small_work")

    async def run(self, images: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function`, which works on so many images, returns. It sees the caller's context variables."""
        if images > SMALL_IMAGES:
            return await asyncio.to_thread(function, *args, **kwargs)
        call = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
