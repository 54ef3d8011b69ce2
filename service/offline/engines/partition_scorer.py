"""Pass two: latents of whole groups to tables of scores, by the code that scores a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from service.api.contexts import codec as context_codec
from service.api.contexts.codec import from_portable
from service.api.score_records import GroupSummary, ScoreRow, TableInfo
from service.bundle.store import Bundle
from service.core.detect.context import Context
from service.errors import InvalidInput
from service.images.reading import Reading
from service.images.sample_range import SampleRange
from service.offline.engines.latent_shards import ShardReader, read_group
from service.offline.engines.work import Span, Work
from service.offline.in_process import local_settings
from service.offline.inputs.source_table import SourceTable
from service.offline.score_rows import RowBuilder, build_failed_rows, summarise_items
from service.offline.scores_table import ScoresWriter
from service.pipeline import responses
from service.pipeline.batch_scorer import BatchScorer, refuse_if_none_is_usable
from service.pipeline.chunked_inference import ChunkedInference
from service.pipeline.hooks import Hooks

# Rows of a group without scores that are made at a time.
ROWS_AT_ONCE = 4096


class PartitionScorer:
    """Scores partitions. Memory holds the latents and scores of one group, but never its images."""

    def __init__(self, work: Work) -> None:
        """Merge the contexts, in the order in which they came. Raises InvalidInput for contexts that do not merge."""
        # As in a pipeline: BLAS threads would wait for each other longer than they compute.
        threadpool_limits(limits=1, user_api="blas")
        hooks = Hooks()
        networks: Any = _NoNetworks(work.bundle)
        inference = ChunkedInference(work.bundle, networks, None, local_settings(), hooks)  # type: ignore[arg-type]
        self._work, self._scorer = work, BatchScorer(work.bundle, inference, hooks)
        self._reader = ShardReader()
        self._context: Context | None = None
        if work.contexts:
            contexts = [from_portable(each, work.bundle) for each in work.contexts]
            self._context = context_codec.merge(contexts, work.bundle.population)

    async def score(self, number: int) -> None:
        """Write the scores of a partition, unless they are there. Raises OSError."""
        path, work = self._work.folder.scores(number), self._work
        if path.exists():
            return
        summaries: dict[str, GroupSummary] = {}
        with ScoresWriter(path) as writer:
            for span in work.partitions[number]:
                group, start, stop = span
                sources = work.sources[start:stop]
                try:
                    rows, summaries[group] = await self._score_group(span, sources)
                except InvalidInput as error:
                    summaries[group] = GroupSummary(0, len(sources), 0, None, "low", "", (str(error),))
                    rows = _build_failed_rows(sources, group, str(error))
                await asyncio.to_thread(_write, writer, rows)
            writer.finish(TableInfo(work.bundle.manifest.bundle_id, work.bundle.manifest.model, {}, summaries))

    async def _score_group(self, span: Span, sources: SourceTable) -> tuple[Iterator[list[ScoreRow]], GroupSummary]:
        """Return the rows of one group, made while they are asked for, and what is said of it. Raises InvalidInput."""
        work, (group, start, stop) = self._work, span
        reading = Reading((), SampleRange(work.options.range))
        familiarity = work.bundle.population.familiarity
        images = await asyncio.to_thread(
            read_group,
            self._reader,
            work.find_latents(start, stop),
            group,
            sources.ids,
            "" if familiarity is None else familiarity.error,
            reading,
        )
        refuse_if_none_is_usable(images, "images")
        batch = await self._scorer.score_images(images, self._context, work.options, reading)
        response = await asyncio.to_thread(responses.build_score_response, batch, work.options, work.bundle)
        scores = batch.require_scores()
        summary = summarise_items(response.head, len(scores.rank), len(images.errors), int(scores.is_outlier.sum()))
        builder = RowBuilder(response.head, sources, group)
        return (builder.build(records) for records in response.records()), summary


@dataclass(frozen=True)
class _NoNetworks:
    """In place of the networks in pass two, which has their latents."""

    bundle: Bundle

    @property
    def capabilities(self) -> object:
        return self.bundle.manifest.capabilities


def _build_failed_rows(sources: SourceTable, group: str, message: str) -> Iterator[list[ScoreRow]]:
    for start in range(0, len(sources), ROWS_AT_ONCE):
        yield build_failed_rows(sources[start : start + ROWS_AT_ONCE], group, message)


def _write(writer: ScoresWriter, parts: Iterator[Sequence[ScoreRow]]) -> None:
    for rows in parts:
        writer.write(rows)
