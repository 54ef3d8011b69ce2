"""Pass one: shards of images to shards of latents, with networks that are loaded once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property, partial
from typing import overload

import numpy as np

from service.api.uploads.mistaken_uploads import read_image
from service.core.detect.ood import OodCheck
from service.core.types import IndexArray
from service.decoding.pool import DecodePool
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.reading import Reading
from service.images.sample_range import SampleRange
from service.inference.local import LocalNetworks
from service.offline.engines.latent_shards import Segment, ShardReader, add_errors, restore_reading, write_shard
from service.offline.engines.work import Work, find_unmeasured
from service.offline.in_process import local_settings
from service.offline.inputs.source_table import Source, SourceTable
from service.pipeline.batch_scorer import BatchScorer
from service.pipeline.chunked_inference import CHUNK_ROWS, ChunkedInference
from service.pipeline.hooks import Hooks

# Segments of small groups in one shard that are encoded at a time.
SEGMENTS_IN_FLIGHT = 8


class Uploads(Sequence[Upload]):
    """Sources as uploads, which are made when they are asked for: a list of a million takes memory."""

    def __init__(self, sources: SourceTable) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, index: int) -> Upload: ...
    @overload
    def __getitem__(self, index: slice) -> list[Upload]: ...
    def __getitem__(self, index: int | slice) -> Upload | list[Upload]:
        if isinstance(index, slice):
            return [_upload(source) for source in self._sources[index]]
        return _upload(self._sources[index])


class ShardEncoder:
    """Encodes shards. Images of one group are read in one way, whichever shards they are in. It has one event loop."""

    def __init__(self, work: Work) -> None:
        """Load the networks. Raises what that raises."""
        settings, hooks = local_settings(), Hooks()
        networks = LocalNetworks(work.bundle, require_gpu=settings.require_gpu)
        self._work, self._decoder = work, DecodePool(settings)
        self._inference = ChunkedInference(work.bundle, networks, self._decoder, settings, hooks)
        self._scorer = BatchScorer(work.bundle, self._inference, hooks)
        self._samples: dict[str, SampleRange] = {}
        self._slots = asyncio.Semaphore(SEGMENTS_IN_FLIGHT)

    async def encode(self, number: int) -> None:
        """Write a shard of latents, unless it is there. Raises OSError."""
        path = self._work.folder.latents(number)
        if path.exists():
            return
        first = number * self._work.shard_images
        shard = self._work.take_shard(number)
        parts = {group: (first + start, first + stop) for group, start, stop in shard.spans()}
        segments = await asyncio.gather(*(self._encode_segment(group, *part) for group, part in parts.items()))
        await asyncio.to_thread(write_shard, path, dict(zip(parts, segments, strict=True)))

    async def complete(self, number: int) -> None:
        """Measure the errors of a shard that its screen left out, and that matter. Raises MisfitError and OSError."""
        rows, path = self._unmeasured.get(number), self._work.folder.latents(number)
        if rows is None:
            return  # another process has done it
        sources, table = self._work.take_shard(number), await asyncio.to_thread(ShardReader().read, path)
        latents = np.asarray(table["latents"].combine_chunks().flatten()).reshape(len(sources), 2, -1)
        checks = []
        for group, start, stop in sources.spans():
            reading = Reading((), SampleRange(self._work.options.range))
            restore_reading(table, group, reading)
            members = rows[(rows >= start) & (rows < stop)]
            for at in range(0, len(members), CHUNK_ROWS):
                chunk = members[at : at + CHUNK_ROWS]
                uploads, resize = [_upload(sources[int(row)]) for row in chunk], self._work.options.resize
                pixels = await self._inference.read_pixels(uploads, resize, DecodeBudget.unlimited(), reading)
                checks.append(await self._inference.measure_error(pixels, latents[chunk]))
        await asyncio.to_thread(add_errors, path, rows, OodCheck.concatenate(checks))

    def close(self) -> None:
        """End the workers that decode."""
        self._decoder.close()

    @cached_property
    def _unmeasured(self) -> dict[int, IndexArray]:
        return find_unmeasured(self._work)

    async def _encode_segment(self, group: str, start: int, stop: int) -> Segment:
        async with self._slots:
            sources, options = self._work.sources, self._work.options
            _, first, last = self._work.find_span(start)
            samples = self._samples.get(group, SampleRange(options.range))
            reading = Reading(Uploads(sources[first:last]), samples)
            uploads = Uploads(sources[start:stop])[:]
            budget = DecodeBudget.unlimited()
            images = await self._scorer.encode_uploads(uploads, options, budget, reading, screen=True)
            if reading.samples.is_complete:
                self._samples[group] = reading.samples
            return Segment(images, reading)


def _upload(source: Source) -> Upload:
    return Upload(source.id, partial(read_image, source.read))
