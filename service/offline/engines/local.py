"""The engine of this machine: the steps of both passes in this process, with workers that decode.

Whoever ends the process loses the shards under way, at most SHARDS_IN_FLIGHT, or the partition under way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.offline.engines.partition_scorer import PartitionScorer
from service.offline.engines.shard_encoder import ShardEncoder
from service.offline.engines.work import Progress, Work

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
        if all(self.work.folder.latents(number).exists() for number in self.work.shards):
            progress(len(self.work.sources))
            return
        encoder = ShardEncoder(self.work)
        slots = asyncio.Semaphore(SHARDS_IN_FLIGHT)

        async def encode(number: int) -> None:
            async with slots:
                await encoder.encode(number)
                progress(len(self.work.take_shard(number)))

        try:
            async with asyncio.TaskGroup() as tasks:
                for number in self.work.shards:
                    tasks.create_task(encode(number))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            encoder.close()

    async def _score(self, progress: Progress) -> None:
        scorer = PartitionScorer(self.work)
        for number in range(len(self.work.partitions)):
            await scorer.score(number)
            progress(self.work.count_images(number))
