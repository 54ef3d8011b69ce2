"""Whose turn it is where only so much runs at a time: those that are due first.

What a request asks for later is due later. So a small request overtakes the rest of a large one, and what has waited
long enough is overtaken by nobody.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count


class Turns:
    """Lets `most` units of work through at a time, for one event loop."""

    def __init__(self, most: int, least: int = 1) -> None:
        """Count every piece of work as `least` units or more."""
        self._most, self._least = most, least
        self._free = most
        self._waiting: list[tuple[float, int, int, asyncio.Future[None]]] = []  # due, number, units, turn has come
        self._numbers = count()

    @asynccontextmanager
    async def turn(self, units: int, due: float) -> AsyncIterator[None]:
        """Wait for the turn of `units` units that are due at that time (event loop's), and keep it inside."""
        taken = await self.take(units, due)
        try:
            yield
        finally:
            self.give_back(taken)

    async def take(self, units: int, due: float) -> int:
        """Wait for the turn as `turn` does. Return the units to be given back."""
        units = min(max(units, self._least), self._most)
        come = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (due, next(self._numbers), units, come))
        self._let_in()
        try:
            await come
        except asyncio.CancelledError:
            if come.done() and not come.cancelled():  # its turn came as it was leaving
                self._free += units
            self._let_in()
            raise
        return units

    def give_back(self, units: int) -> None:
        """End a turn of so many units."""
        self._free += units
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            _, _, units, come = self._waiting[0]
            if not come.cancelled():
                if units > self._free:
                    return
                self._free -= units
                come.set_result(None)
            heapq.heappop(self._waiting)
