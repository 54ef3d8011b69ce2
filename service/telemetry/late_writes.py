"""Writes to metrics that happen together, a moment later.

prometheus_client writes every count to a file, under a lock that all threads share. A small request has ten counts, and
would wait for them longer than for its parsing.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

FLUSH_SECONDS = 0.1


class LateWrites:
    """What is to be written to the metrics of this process, FLUSH_SECONDS after the first of it came.

    Where no event loop runs, everything is written at once. Threads may count as well: what they add to the queue is
    taken from it once, by whoever writes.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Literal["observe", "inc", "set"], Any, float]] = deque()
        self._followed: dict[Any, Callable[[], float]] = {}
        self._due_in: asyncio.AbstractEventLoop | None = None

    def observe(self, histogram: Any, amount: float) -> None:
        """Add an observation to a histogram that has all of its labels."""
        self._queue.append(("observe", histogram, amount))
        self._write_soon()

    def inc(self, counter: Any) -> None:
        """Add 1 to a counter."""
        self._queue.append(("inc", counter, 1))
        self._write_soon()

    def set(self, gauge: Any, value: float) -> None:
        """Set a gauge. Only the last value is written."""
        self._queue.append(("set", gauge, value))
        self._write_soon()

    def follow(self, gauge: Any, read: Callable[[], float]) -> None:
        """Set a gauge to what `read` returns, now and whenever anything is written."""
        self._followed[gauge] = read
        gauge.set(read())

    def write(self) -> None:
        """Write everything now."""
        self._due_in = None
        observed, added = defaultdict[Any, list[float]](list), Counter[Any]()
        values = {gauge: read() for gauge, read in self._followed.items()}
        with suppress(IndexError):
            while True:
                kind, metric, amount = self._queue.popleft()
                if kind == "observe":
                    observed[metric].append(amount)
                elif kind == "inc":
                    added[metric] += 1
                else:
                    values[metric] = amount
        for histogram, amounts in observed.items():
            _observe_all(histogram, amounts)
        for counter, count in added.items():
            counter.inc(count)
        for gauge, value in values.items():
            gauge.set(value)

    def _write_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # before the service has started, or in a thread: a loop may be about to write
            if self._due_in is None or self._due_in.is_closed():
                self.write()
            return
        if self._due_in is not loop:
            self._due_in = loop
            loop.call_later(FLUSH_SECONDS, self.write)


def _observe_all(histogram: Any, amounts: Sequence[float]) -> None:
    """Do what `observe` does for each amount. `service.hosting.metric_files` checks that the private names exist."""
    histogram._sum.inc(sum(amounts))
    for bucket, count in Counter(bisect_left(histogram._upper_bounds, amount) for amount in amounts).items():
        histogram._buckets[bucket].inc(count)


late_writes = LateWrites()
