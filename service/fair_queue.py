"""A fair queue in front of a bounded resource: at most `capacity` units run at once, earliest due time first.

Later parts of a large request are due later. So a small request overtakes the rest of a large one. Nothing overtakes
work that has waited long enough.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count


class FairQueue:
    """Admits at most `capacity` units of work at a time, for one event loop."""

    def __init__(self, capacity: int, min_units: int = 1) -> None:
        """Make an empty queue. Every piece of work counts as at least `min_units` and at most `capacity` units."""
        self._capacity, self._min_units = capacity, min_units
        self._free = capacity
        self._waiting: list[tuple[float, int, int, asyncio.Future[None]]] = []  # due, number, units, admitted
        self._numbers = count()

    @asynccontextmanager
    async def slot(self, units: int, due: float) -> AsyncIterator[None]:
        """Wait until `units` units are admitted, and release them at the end of the block.

        `due` is a time of the event loop: the earliest is admitted first.
        """
        acquired = await self.acquire(units, due)
        try:
            yield
        finally:
            self.release(acquired)

    async def acquire(self, units: int, due: float) -> int:
        """Wait as `slot` does. Return the number of units to be released."""
        units = min(max(units, self._min_units), self._capacity)
        if not self._waiting and units <= self._free:
            self._free -= units
            return units
        admitted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (due, next(self._numbers), units, admitted))
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # admitted while it was being cancelled
                self._free += units
            self._admit()
            raise
        return units

    def release(self, units: int) -> None:
        """Free `units` units, and admit the work that waits for them."""
        self._free += units
        self._admit()

    def _admit(self) -> None:
        """Admit waiting work in order, until the next piece finds no room."""
        while self._waiting:
            _, _, units, admitted = self._waiting[0]
            if not admitted.cancelled():
                if units > self._free:
                    return
                self._free -= units
                admitted.set_result(None)
            heapq.heappop(self._waiting)
