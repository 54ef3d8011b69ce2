"""The engine for large inputs on this machine: two passes with latents in Parquet between them.

Pass one decodes and encodes images, a shard of SHARD_IMAGES at a time; a shard that is there is not made again. Pass
two scores each group from its latents, by the code that scores a request. Memory holds the latents and scores of one
group, but never its images. Whoever ends the process loses the shards under way, at most SHARDS_IN_FLIGHT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol, overload

from service.api import context_codec
from service.api.context_codec import from_portable
from service.api.mistaken_uploads import read_image
from service.api.options import ScoreOptions
from service.api.schemas import PortableContext
from service.bundle.store import Bundle
from service.core.detect.context import Context
from service.decoding.pool import DecodePool
from service.errors import InvalidInput, MisfitError
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.reading import Reading
from service.images.sample_range import SampleRange
from service.inference.local import LocalNetworks
from service.offline.in_process import local_settings
from service.offline.latent_shards import Segment, read_group, write_shard
from service.offline.score_records import GroupSummary, ScoreRow
from service.offline.score_rows import RowBuilder, build_failed_rows, summarise_items
from service.offline.sources import Source
from service.offline.work_folder import SHARD_IMAGES, WorkFolder
from service.pipeline import responses
from service.pipeline.batch_scorer import BatchScorer, refuse_if_none_is_usable
from service.pipeline.chunked_inference import ChunkedInference
from service.pipeline.hooks import Hooks
from service.settings import Settings

# While one shard is written, the next one is computed.
SHARDS_IN_FLIGHT = 2
# Segments of small groups in one shard that are encoded at a time.
SEGMENTS_IN_FLIGHT = 8

Progress = Callable[[int], None]


class RowSink(Protocol):
    """Takes rows, in order."""

    def write(self, rows: Sequence[ScoreRow]) -> None: ...


class Uploads(Sequence[Upload]):
    """Sources as uploads, which are made when they are asked for: a list of a million takes memory."""

    def __init__(self, sources: Sequence[Source]) -> None:
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


@dataclass(frozen=True)
class LocalEngine:
    """Scores sources, sorted by group, with the work of a folder. Answers are those of /score, group by group.

    contexts  what the images are compared with; empty where each group is compared with itself
    """

    bundle: Bundle
    options: ScoreOptions
    contexts: Sequence[PortableContext]
    sources: Sequence[Source]
    folder: WorkFolder

    def encode(self, progress: Progress = lambda count: None) -> None:
        """Pass one: write every shard of latents that is not there. `progress` is told of images that are done.

        Raises OSError, and what loading the networks raises.
        """
        asyncio.run(self._encode(progress))

    def score(self, writers: Sequence[RowSink], progress: Progress = lambda count: None) -> dict[str, GroupSummary]:
        """Pass two: write the rows of every group, in order. Return what is said of each group.

        Raises InvalidInput where no image at all can be used, and OSError.
        """
        return asyncio.run(self._score(writers, progress))

    async def _encode(self, progress: Progress) -> None:
        settings = local_settings()
        decoder = DecodePool(settings)
        try:
            scorer = self._make_scorer(LocalNetworks(self.bundle, require_gpu=settings.require_gpu), settings, decoder)
            groups = {group: Uploads(self.sources[start:stop]) for group, start, stop in self._spans()}
            encoder = _ShardEncoder(scorer, self.options, groups, {}, asyncio.Semaphore(SEGMENTS_IN_FLIGHT))
            semaphore = asyncio.Semaphore(SHARDS_IN_FLIGHT)

            async def make(number: int) -> None:
                async with semaphore:
                    shard = self.sources[number * SHARD_IMAGES : (number + 1) * SHARD_IMAGES]
                    if not self.folder.is_done(number):
                        segments = await encoder.encode(shard)
                        await asyncio.to_thread(write_shard, self.folder.shard(number), segments)
                    progress(len(shard))

            try:
                async with asyncio.TaskGroup() as tasks:
                    for number in range(-(-len(self.sources) // SHARD_IMAGES)):
                        tasks.create_task(make(number))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
        finally:
            decoder.close()

    async def _score(self, writers: Sequence[RowSink], progress: Progress) -> dict[str, GroupSummary]:
        scorer = self._make_scorer(_NoNetworks(self.bundle), local_settings(), None)
        context = None
        if self.contexts:
            contexts = [from_portable(each, self.bundle) for each in self.contexts]
            context = context_codec.merge(contexts, self.bundle.population)
        summaries: dict[str, GroupSummary] = {}
        problem: MisfitError | None = None
        for group, start, stop in self._spans():
            sources = self.sources[start:stop]
            try:
                rows, summary = await self._score_group(scorer, context, group, start, sources)
                for part in rows:
                    _write(writers, part)
            except InvalidInput as error:
                problem, message = error, str(error)
                summary = GroupSummary(0, len(sources), 0, None, "low", "", (message,))
                _write(writers, build_failed_rows(sources, group, message))
            summaries[group] = summary
            progress(len(sources))
        if problem is not None and not any(summary.n for summary in summaries.values()):
            raise problem
        return summaries

    async def _score_group(
        self, scorer: BatchScorer, context: Context | None, group: str, start: int, sources: Sequence[Source]
    ) -> tuple[Iterator[list[ScoreRow]], GroupSummary]:
        """Return the rows of one group, made while they are asked for, and what is said of it. Raises InvalidInput."""
        reading = Reading((), SampleRange(self.options.range))
        shards = range(start // SHARD_IMAGES, -(-(start + len(sources)) // SHARD_IMAGES))
        familiarity = self.bundle.population.familiarity
        images = await asyncio.to_thread(
            read_group,
            [self.folder.shard(number) for number in shards],
            group,
            [source.id for source in sources],
            "" if familiarity is None else familiarity.error,
            reading,
        )
        refuse_if_none_is_usable(images, "images")
        batch = await scorer.score_images(images, context, self.options, reading)
        response = await asyncio.to_thread(responses.build_score_response, batch, self.options, self.bundle)
        scores = batch.require_scores()
        summary = summarise_items(response.head, len(scores.rank), len(images.errors), int(scores.is_outlier.sum()))
        builder = RowBuilder(response.head, sources, group)
        return (builder.build(records) for records in response.records()), summary

    def _spans(self) -> Iterator[tuple[str, int, int]]:
        """Yield each group with the positions of its first image and behind its last one."""
        start = 0
        for group, members in groupby(self.sources, key=attrgetter("group")):
            stop = start + sum(1 for _ in members)
            yield group, start, stop
            start = stop

    def _make_scorer(self, networks: Any, settings: Settings, decoder: DecodePool | None) -> BatchScorer:
        hooks = Hooks()
        inference = ChunkedInference(self.bundle, networks, decoder, settings, hooks)  # type: ignore[arg-type]
        return BatchScorer(self.bundle, inference, hooks)


@dataclass(frozen=True)
class _ShardEncoder:
    """Encodes shards. Images of one group are read in one way, whichever shards they are in.

    groups   the uploads of each group
    samples  the range of deep samples of each group, once it was measured
    """

    scorer: BatchScorer
    options: ScoreOptions
    groups: dict[str, Uploads]
    samples: dict[str, SampleRange]
    semaphore: asyncio.Semaphore

    async def encode(self, shard: Sequence[Source]) -> dict[str, Segment]:
        """Return the segments of a shard by their groups, in order."""
        parts = {group: list(members) for group, members in groupby(shard, key=attrgetter("group"))}
        segments = await asyncio.gather(*(self._encode_segment(group, part) for group, part in parts.items()))
        return dict(zip(parts, segments, strict=True))

    async def _encode_segment(self, group: str, sources: list[Source]) -> Segment:
        async with self.semaphore:
            samples = self.samples.get(group, SampleRange(self.options.range))
            reading = Reading(self.groups[group], samples)
            budget = DecodeBudget.unlimited()
            images = await self.scorer.encode_uploads(Uploads(sources)[:], self.options, budget, reading)
            if reading.samples.is_complete:
                self.samples[group] = reading.samples
            return Segment(images, reading)


@dataclass(frozen=True)
class _NoNetworks:
    """In place of the networks in pass two, which has their latents."""

    bundle: Bundle

    @property
    def capabilities(self) -> object:
        return self.bundle.manifest.capabilities


def _upload(source: Source) -> Upload:
    return Upload(source.id, partial(read_image, source.read))


def _write(writers: Sequence[RowSink], rows: Sequence[ScoreRow]) -> None:
    for writer in writers:
        writer.write(rows)
