"""Image files to rows of pixels, decoded in worker processes within limits of memory and CPU, small images first.

A job first reads the headers. Images that together take little memory are decoded at once. For other images the job
returns how many bytes they take. The pool counts the bytes against the request's budget and against what may wait at a
time. It decodes these images later, in workers of lower priority. So no request waits for another's large images.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import joblib
import numpy as np

from service.decoding.jobs import Decoded, Job, RowShape, run
from service.decoding.row_buffer import RowBuffer
from service.decoding.worker_group import WorkerEnded, WorkerGroup
from service.errors import Overloaded, UndecodableImage
from service.fair_queue import FairQueue
from service.images.decode import Content, Rows, Upload
from service.images.decode_budget import DecodeBudget
from service.images.limits import MIB, Limits
from service.images.sample_range import SampleRange
from service.images.spec import Resize, Spec
from service.settings import Settings
from service.short_work import SHORT_IMAGES

# Bytes of the files of one job. A larger file is a job of its own.
JOB_BYTES = MIB
# If the images of a job together take at most this many bytes, they are decoded at once, in some 25 ms.
AT_ONCE_BYTES = 8 * MIB
# One job of large images takes at most this many bytes, and some 0.2 s, unless it is a single image. As many jobs run
# at a time as there are workers; fewer beside an image that takes more.
LARGE_BYTES = 64 * MIB
# Workers for large images leave the CPU to small images and to all other short work.
LARGE_NICENESS = 10
# Images are due a second later for every BYTES_PER_SECOND that they take.
BYTES_PER_SECOND = 32 * MIB
# CPU seconds that a process takes to start again.
RESTART_SECONDS = 0.25
# CPU seconds for a job of a request whose budget is almost used up.
SHORTEST_SECONDS = 0.01
# Times that an image is tried alone if somebody else ends its worker each time. Chance ends hardly ever as many.
TRIES = 4
# CPU seconds for a job whose budget is unlimited.
LONGEST_SECONDS = 3600.0
PROBE_SECONDS = 3.0
UNMEASURED = SampleRange()


class Decoder(Protocol):
    """Decodes the uploads of requests."""

    async def read(
        self,
        uploads: Sequence[Upload],
        spec: Spec,
        resize: Resize,
        budget: DecodeBudget,
        samples: SampleRange = UNMEASURED,
        *,
        measures: bool = False,
    ) -> Rows:
        """Return the rows of every usable upload, and the errors of the others.

        An image whose range `samples` does not tell is not decoded. If the call `measures`, these are decoded, and the
        extent of their samples is all that it returns. Raises TooLarge if the budget is exceeded, Overloaded if too
        much waits to be decoded.
        """


class LocalDecoder:
    """Decodes in a thread of this process. It is for offline use, where no server runs."""

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.max_image_pixels

    async def read(
        self,
        uploads: Sequence[Upload],
        spec: Spec,
        resize: Resize,
        budget: DecodeBudget,
        samples: SampleRange = UNMEASURED,
        *,
        measures: bool = False,
    ) -> Rows:
        return await asyncio.to_thread(self._read, uploads, spec, resize, budget, samples, measures)

    def _read(
        self,
        uploads: Sequence[Upload],
        spec: Spec,
        resize: Resize,
        budget: DecodeBudget,
        samples: SampleRange,
        measures: bool,
    ) -> Rows:
        rows = RowBuffer(uploads, spec, budget)
        shape, files = RowShape.of(spec), list(rows.files)
        limits = Limits(self._max_pixels, budget.max_image_bytes)
        job = Job((), shape, resize, limits, None, budget.bytes_left, 0, samples, measures)
        decoded = run(rows.select(job, files))
        budget.take(sum(decoded.costs))
        rows.add(files, decoded)
        return rows.result()


class DecodePool:
    """Decodes in worker processes. It belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.max_image_pixels
        self._max_waiting, self._waiting = settings.max_decode_bytes_in_flight, 0
        self._longest_delay = settings.timeout_seconds / 2
        self._threads = ThreadPoolExecutor(thread_name_prefix="uploads", max_workers=2)
        workers = joblib.cpu_count()
        self._quick = WorkerGroup(workers, 0, settings.max_decode_bytes, FairQueue(workers))
        queue = FairQueue(workers * LARGE_BYTES, LARGE_BYTES)
        self._large = WorkerGroup(workers, LARGE_NICENESS, settings.max_decode_bytes, queue)

    def start(self) -> None:
        """Start the workers for small images. The workers for large images start with the first large image."""
        self._quick.start()

    def close(self) -> None:
        """End every worker at once."""
        self._quick.close()
        self._large.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def is_alive(self) -> bool:
        """Return whether a job ended in the last PROBE_SECONDS, or an empty job, ahead of all others, succeeds now."""
        if self._quick.idle_seconds() < PROBE_SECONDS:
            return True
        job = Job([], RowShape(1, 1, 1), "fit", Limits(self._max_pixels), None, 0, PROBE_SECONDS)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._quick.run(job, 1, due=0.0)
        except (TimeoutError, WorkerEnded):
            return False
        return True

    async def read(
        self,
        uploads: Sequence[Upload],
        spec: Spec,
        resize: Resize,
        budget: DecodeBudget,
        samples: SampleRange = UNMEASURED,
        *,
        measures: bool = False,
    ) -> Rows:
        if len(uploads) <= SHORT_IMAGES and all(upload.is_in_memory for upload in uploads):
            rows = RowBuffer(uploads, spec, budget)
        else:
            rows = await asyncio.get_running_loop().run_in_executor(self._threads, RowBuffer, uploads, spec, budget)
        if rows.files:
            limits = Limits(self._max_pixels, budget.max_image_bytes)
            job = Job((), RowShape.of(spec), resize, limits, AT_ONCE_BYTES, 0, 0, samples, measures)
            groups = _group(list(rows.files), _count_sent_bytes(list(rows.files.values())), JOB_BYTES)
            await _run_all(self._decode(rows, group, job, budget) for group in groups)
        return rows.result()

    async def _decode(self, rows: RowBuffer, positions: Sequence[int], job: Job, budget: DecodeBudget) -> None:
        """Decode the files at `positions`: at once if they are small, else when there is room for them."""
        result = await self._run(rows, positions, job, budget)
        if result is None or result.pixels is not None:
            return
        costs = dict(zip(positions, result.costs, strict=False))
        usable = [at for at in positions if costs[at] and at not in rows.errors]
        large_job = replace(job, decode_up_to=None)
        groups = list(_group(usable, [costs[at] for at in usable], LARGE_BYTES))
        with self._room_for(sum(result.costs), budget):
            await _run_all(
                self._run(rows, group, large_job, budget, sum(costs[at] for at in group)) for group in groups
            )

    async def _run(
        self,
        rows: RowBuffer,
        positions: Sequence[int],
        job: Job,
        budget: DecodeBudget,
        cost: int | None = None,
        tries: int = TRIES,
    ) -> Decoded | None:
        """Run the job on the files at `positions` in a worker. Return None if the worker ended.

        `cost` is the bytes that the files take, if an earlier job has measured them and the budget has counted them.
        An image whose worker was killed from outside is tried again, `tries` times in all.
        """
        job = replace(
            rows.select(job, positions),
            give_up_at=budget.bytes_left if cost is None else sys.maxsize,
            seconds=min(max(budget.seconds_left, SHORTEST_SECONDS), LONGEST_SECONDS),
        )
        due = budget.began + min(budget.bytes / BYTES_PER_SECOND, self._longest_delay)
        try:
            run = self._quick.run(job, 1, due) if cost is None else self._large.run(job, cost, due)
            decoded = await run
        except WorkerEnded as ended:
            budget.spend(job.seconds if ended.took_too_long else RESTART_SECONDS)
            if len(positions) == 1 and ended.was_killed and tries > 1:
                return await self._run(rows, positions, job, budget, cost, tries - 1)
            if len(positions) == 1:
                rows.errors[positions[0]] = UndecodableImage(
                    "The image cannot be decoded: it ended the process that tried.", "It may be damaged: leave it out."
                )
            else:
                await _run_all(self._decode(rows, [at], job, budget) for at in positions)
            return None
        budget.spend(decoded.seconds)
        if cost is None:
            budget.take(sum(decoded.costs))
        rows.add(positions, decoded)
        return decoded

    @contextmanager
    def _room_for(self, cost: int, budget: DecodeBudget) -> Iterator[None]:
        """Count images of `cost` bytes as waiting while the block runs. Raises Overloaded if there is no room for them.

        A request that was admitted once is never refused later. If no images wait, every request is admitted.
        """
        if self._waiting and self._waiting + cost > self._max_waiting and not budget.is_admitted:
            raise Overloaded(
                f"Images that take {self._waiting // MIB} MiB to decode are waiting, and there is no room for "
                f"{cost // MIB} MiB more; at most {self._max_waiting // MIB} MiB are taken at a time.",
                "Send it again a little later.",
            )
        budget.is_admitted = True
        self._waiting += cost
        try:
            yield
        finally:
            self._waiting -= cost


async def _run_all(works: Iterator[object]) -> None:
    """Run all coroutines concurrently. The first failure cancels the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)  # type: ignore[arg-type]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _count_sent_bytes(contents: Sequence[Content]) -> list[int]:
    """Return the bytes of each content; 0 where it is the one before, of which another page is meant: a job has it
    once.
    """
    sizes = [content.nbytes if isinstance(content, np.ndarray) else len(content) for content in contents]
    return [0 if at and contents[at - 1] is contents[at] else size for at, size in enumerate(sizes)]


def _group(positions: Sequence[int], sizes: Sequence[int], max_size: int) -> Iterator[list[int]]:
    """Split positions into groups of neighbours whose sizes add up to at most `max_size`. A larger file is alone."""
    group: list[int] = []
    total = 0
    for position, size in zip(positions, sizes, strict=True):
        if group and total + size > max_size:
            yield group
            group, total = [], 0
        group.append(position)
        total += size
    if group:
        yield group
