"""Whose rows go to the networks next: a bounded number at a time, those that are due first.

A row is due the later the more rows of its own request go before it. So a small request overtakes the rest of a large
one, and what has waited long enough is overtaken by nobody.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

# Each call takes one of the hundred connections to the networks' process: with this as the least that a call counts
# for, and 1024 rows at a time, there are never so many calls that a probe would find none free.
LEAST_ROWS = 16


class Turns:
    """Lets `most_rows` rows through at a time, for one event loop."""

    def __init__(self, most_rows: int, seconds_per_row: float) -> None:
        """A row is due `seconds_per_row` after the one before it in its request."""
        self._most_rows, self._seconds_per_row = most_rows, seconds_per_row
        self._free = most_rows
        self._waiting: list[tuple[float, int, int, asyncio.Future[None]]] = []  # due, number, rows, turn has come
        self._numbers = count()

    @asynccontextmanager
    async def turn(self, rows: int, began: float, before: int) -> AsyncIterator[None]:
        """The turn of `rows` rows of a request that began then (event loop's time), with `before` rows before them."""
        rows = min(max(rows, LEAST_ROWS), self._most_rows)
        come = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (began + before * self._seconds_per_row, next(self._numbers), rows, come))
        self._let_in()
        try:
            await come
            yield
        finally:
            if not come.cancelled():  # not gone before its turn came
                self._free += rows
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            _, _, rows, come = self._waiting[0]
            if not come.cancelled():
                if rows > self._free:
                    return
                self._free -= rows
                come.set_result(None)
            heapq.heappop(self._waiting)
