"""Adaptive batches: rows of all requests, merged tile by tile as threads come free.

Rows wait while every thread is at work, and for some turns of the event loop, in which others may come. So a single
request starts almost at once, and under load each tile has the rows of several requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# A tile of so many rows costs hardly more for each than a full one, and leaves others to the other threads.
SMALL_TILE_ROWS = 16
# Turns of the event loop without new rows after which a thread starts: some 50 microseconds where nothing else happens.
# A loop that is busy reads a call of gRPC every few turns, and a thread takes less time for its image than that. Turns
# may be long: a thread starts after QUIET_SECONDS in any case.
QUIET_TURNS, QUIET_SECONDS = 8, 0.002

Network = Literal["encode", "encode_checked", "encode_screened", "decode", "saliency"]
Outputs = tuple[NDArray[Any], ...]


class BatchHooks:
    """The calls that report on adaptive batches. These methods do nothing; a subclass overrides them."""

    def adaptive_batch(self, network: str, rows: int, computed: int) -> AbstractContextManager[None]:
        """Return a context manager that measures a batch of `rows` rows; `computed` rows with padding."""
        return nullcontext()

    def observe_wait(self, network: str, seconds: float) -> None:
        """Report that a job waited for `seconds` until its first row began."""


@dataclass(eq=False)
class Job:
    """Rows of one request for one network; `next` is the first row that has not begun."""

    network: Network
    rows: NDArray[Any]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Outputs]
    since: float = field(default_factory=time.perf_counter)
    next: int = 0
    parts: dict[int, Outputs] = field(default_factory=dict)
    finished: int = 0

    def finish(self, outputs: Outputs | Exception, start: int = 0) -> None:
        """Take the outputs of the rows from `start` on, or an error. Call this in the job's event loop."""
        if self.result.done():
            return
        if isinstance(outputs, Exception):
            self.result.set_exception(outputs)
            return
        self.parts[start] = outputs
        self.finished += len(outputs[0])
        if self.finished == len(self.rows):
            parts = [self.parts[start] for start in sorted(self.parts)]
            whole = parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))
            self.result.set_result(whole)


Piece = tuple[Job, slice]
# Of a job: its event loop, its number among all, and until when it may wait for others, by the loop's clock.
Arrival = tuple[asyncio.AbstractEventLoop, int, float]


class AdaptiveBatches:
    """Runs tiles of rows in `threads` threads. It may serve several event loops."""

    def __init__(
        self,
        run_tile: Callable[[Network, NDArray[Any]], Outputs],
        tile_rows: int,
        threads: int,
        computed_rows: Callable[[Network, int], int],
        hooks: BatchHooks | None = None,
    ) -> None:
        """`run_tile` runs a network on at most `tile_rows` rows, which `computed_rows` counts with their padding."""
        self._run_tile, self._tile_rows, self._computed_rows = run_tile, tile_rows, computed_rows
        self._hooks = hooks or BatchHooks()
        self._small_tile_rows = min(SMALL_TILE_ROWS, tile_rows)
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "networks")
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._numbers = count()
        self._newest: Arrival
        self._at_work = 0  # threads

    async def run(self, network: Network, rows: NDArray[Any]) -> Outputs:
        """Return the outputs of `network` for rows (n, ...), n >= 1. Raises what the network raises."""
        loop = asyncio.get_running_loop()
        job = Job(network, rows, loop, loop.create_future())
        with self._lock:
            self._waiting.append(job)
            self._newest = arrival = loop, next(self._numbers), loop.time() + QUIET_SECONDS
        self._start_when_quiet(arrival, QUIET_TURNS)
        return await job.result

    def _start_when_quiet(self, arrival: Arrival, turns: int) -> None:
        """Start threads after `turns` turns of the event loop, or at once where the rows that wait fill a small tile.

        A later arrival in that loop has turns of its own.
        """
        loop, number, until = arrival
        with self._lock:
            newest_loop, newest, _ = self._newest
            if newest_loop is loop and newest > number:
                return
            if turns and self._count_waiting() < self._small_tile_rows and loop.time() < until:
                loop.call_soon(self._start_when_quiet, arrival, turns - 1)
            else:
                self._start_threads()

    def _count_room(self) -> int:
        """Return the rows of the next tile, at most: a thread's share of those that wait, unless padding would follow.

        The caller holds the lock.
        """
        share = max(-(-self._count_waiting() // self._threads), self._small_tile_rows)
        is_padded = self._waiting and self._computed_rows(self._waiting[0].network, share) > share
        return self._tile_rows if is_padded else min(share, self._tile_rows)

    def _count_waiting(self) -> int:
        return sum(len(job.rows) - job.next for job in self._waiting)

    def _start_threads(self) -> None:
        """Start as many threads as there are small tiles that wait. The caller holds the lock."""
        wanted = min(-(-self._count_waiting() // self._small_tile_rows), self._threads)
        while self._at_work < wanted:
            self._at_work += 1
            self._pool.submit(self._work)

    def _work(self) -> None:
        """Run tiles until no row waits."""
        try:
            while pieces := self._take():
                _hand_out(pieces, self._run(pieces))
        finally:
            with self._lock:
                self._at_work -= 1
                self._start_threads()  # rows may have come since the last look, or this thread ends in an error

    def _run(self, pieces: Sequence[Piece]) -> Outputs | Exception:
        """Return the outputs of one tile, or the error in which it ended: whatever it is, those that wait get it."""
        network, size = pieces[0][0].network, sum(rows.stop - rows.start for _, rows in pieces)
        try:
            with self._hooks.adaptive_batch(network, size, self._computed_rows(network, size)):
                return self._run_tile(network, _join(pieces))
        except Exception as error:  # noqa: BLE001
            return error

    def _take(self) -> Sequence[Piece]:
        """Return the next rows: those that have waited longest, and others of their network, up to one tile."""
        with self._lock:
            pieces: list[Piece] = []
            room, passed = self._count_room(), deque[Job]()
            while self._waiting and room:
                job = self._waiting.popleft()
                if job.result.done():  # its request has ended
                    continue
                if pieces and job.network != pieces[0][0].network:
                    passed.append(job)
                    continue
                if not job.next:
                    self._hooks.observe_wait(job.network, time.perf_counter() - job.since)
                stop = min(job.next + room, len(job.rows))
                pieces.append((job, slice(job.next, stop)))
                room -= stop - job.next
                job.next = stop
                if stop < len(job.rows):
                    passed.append(job)
            self._waiting = deque(chain(passed, self._waiting))
            return pieces


def _join(pieces: Sequence[Piece]) -> NDArray[Any]:
    parts = [job.rows[rows] for job, rows in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _hand_out(pieces: Sequence[Piece], outputs: Outputs | Exception) -> None:
    """Give each job its rows, in its own event loop."""
    for loop in {job.loop for job, _ in pieces}:
        results = [result for result in _split(pieces, outputs) if result[0].loop is loop]
        with suppress(RuntimeError):  # the loop has been closed: nobody waits
            loop.call_soon_threadsafe(_finish_all, results)


def _split(pieces: Sequence[Piece], outputs: Outputs | Exception) -> Iterator[tuple[Job, Outputs | Exception, int]]:
    start = 0
    for job, rows in pieces:
        stop = start + rows.stop - rows.start
        if isinstance(outputs, Exception):
            yield job, outputs, rows.start
        else:
            yield job, tuple(output[start:stop] for output in outputs), rows.start
        start = stop


def _finish_all(results: Sequence[tuple[Job, Outputs | Exception, int]]) -> None:
    for job, outputs, start in results:
        job.finish(outputs, start)
