"""Work that is too short for a thread of its own: handing it over would take longer than the work itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Work on so many images, or on a message of so many bytes, takes about a millisecond.
SHORT_IMAGES = 16
SHORT_BYTES = 128 * 1024


async def run(is_short: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns: it runs in a thread, or at once where it `is_short`."""
    if is_short:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
