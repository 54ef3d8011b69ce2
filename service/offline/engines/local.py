"""The engine of this machine: the steps of both passes in this process, with workers that decode.

Whoever ends the process loses the shards under way, at most SHARDS_IN_FLIGHT, or the partition under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from service.offline.engines.partition_scorer import PartitionScorer
from service.offline.engines.shard_encoder import ShardEncoder
from service.offline.engines.work import Progress, Work, find_unmeasured

# While one shard is written, the next one is computed.
SHARDS_IN_FLIGHT = 2


@dataclass(frozen=True)
class LocalEngine:
    """Keeps the protocol `Engine`."""

    work: Work

    def encode(self, progress: Progress = lambda count: None) -> None:
        asyncio.run(self._encode(progress))

    def score(self, progress: Progress = lambda count: None) -> None:
        asyncio.run(self._score(progress))

    async def _encode(self, progress: Progress) -> None:
        work = self.work
        todo = [number for number in work.shards if not work.folder.latents(number).exists()]
        progress(len(work.sources) - sum(len(work.take_shard(number)) for number in todo))
        encoder = ShardEncoder(work) if todo else None
        try:
            if encoder is not None:
                await _run(encoder.encode, todo, lambda number: progress(len(work.take_shard(number))))
            if unmeasured := find_unmeasured(work):
                encoder = encoder or ShardEncoder(work)
                await _run(encoder.complete, unmeasured)
        finally:
            if encoder is not None:
                encoder.close()

    async def _score(self, progress: Progress) -> None:
        scorer = PartitionScorer(self.work)
        for number in range(len(self.work.partitions)):
            await scorer.score(number)
            progress(self.work.count_images(number))


async def _run(
    step: Callable[[int], Awaitable[None]], numbers: Iterable[int], done: Callable[[int], None] = lambda number: None
) -> None:
    """Run the steps of these numbers, some at a time. Raise what the first one raises that fails."""
    slots = asyncio.Semaphore(SHARDS_IN_FLIGHT)

    async def run(number: int) -> None:
        async with slots:
            await step(number)
            done(number)

    try:
        async with asyncio.TaskGroup() as tasks:
            for number in numbers:
                tasks.create_task(run(number))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
