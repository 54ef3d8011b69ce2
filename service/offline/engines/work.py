"""What there is to do in two passes, cut into numbered steps. An engine says who does them, and when.

Pass one decodes and encodes the images of a shard, and leaves its latents in a file. Pass two scores the groups of a
partition from their latents, by the code that scores a request, and leaves a table of scores. A step whose file is
there is done. So the numbers are the same whoever does which step, in whatever order, and however often it was begun.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import numpy as np

from service.api.contexts.portable import PortableContext
from service.api.options import ScoreOptions
from service.api.score_records import GroupSummary, ScoreRow
from service.bundle.store import Bundle
from service.core.detect.ood import OodCheck
from service.core.types import IndexArray
from service.errors import InvalidInput
from service.offline.engines.latent_shards import UNCHECKED, read_error_ratio
from service.offline.engines.work_folder import WorkFolder
from service.offline.inputs.source_table import SourceTable
from service.offline.scores_table import read_info, read_rows
from service.pipeline.familiarity import needs_all_errors

# Images of one shard. Changing it changes no score.
SHARD_IMAGES = 4096

Progress = Callable[[int], None]
# A group's name, the position of its first image, and that behind its last one.
Span = tuple[str, int, int]


@dataclass(frozen=True)
class Work:
    """Images to score, with the options of /score, group by group.

    contexts  what the images are compared with; empty where each group is compared with itself
    sources   sorted by group
    folder    keeps what is done
    """

    bundle: Bundle
    options: ScoreOptions
    contexts: Sequence[PortableContext]
    sources: SourceTable
    folder: WorkFolder
    shard_images: int = SHARD_IMAGES

    @property
    def shards(self) -> range:
        """Return the numbers of the shards of pass one."""
        return range(-(-len(self.sources) // self.shard_images))

    def take_shard(self, number: int) -> SourceTable:
        """Return the images of a shard."""
        return self.sources[number * self.shard_images : (number + 1) * self.shard_images]

    @cached_property
    def spans(self) -> list[Span]:
        """Return the groups, in order."""
        return self.sources.spans()

    def find_span(self, position: int) -> Span:
        """Return the group that the image at a position is in."""
        return self.spans[bisect_right(self.spans, position, key=itemgetter(1)) - 1]

    def find_latents(self, start: int, stop: int) -> list[tuple[Path, slice]]:
        """Return the shards that hold the latents of consecutive images, each with their rows in it."""
        size = self.shard_images
        numbers = range(start // size, -(-stop // size))
        return [
            (self.folder.latents(each), slice(max(start - each * size, 0), min(stop - each * size, size)))
            for each in numbers
        ]

    @cached_property
    def partitions(self) -> list[list[Span]]:
        """Return the groups of each partition of pass two: at least as many images as a shard has, in whole groups."""
        partitions: list[list[Span]] = []
        count = self.shard_images
        for span in self.spans:
            if count >= self.shard_images:
                partitions.append([])
                count = 0
            partitions[-1].append(span)
            count += span[2] - span[1]
        return partitions

    def count_images(self, partition: int) -> int:
        """Return how many images a partition has."""
        return sum(stop - start for _, start, stop in self.partitions[partition])


def find_unmeasured(work: Work) -> dict[int, IndexArray]:
    """Return the rows of each shard whose errors a screen left out although they decide what is foreign in their group.

    Every shard of latents is there. Raises OSError.
    """
    if work.contexts:
        return {}  # the limit is the contexts' own
    ratio = np.concatenate([read_error_ratio(work.folder.latents(number)) for number in work.shards])
    is_open = np.isnan(ratio)
    for _, start, stop in work.spans:
        checked = ratio[start:stop][ratio[start:stop] != UNCHECKED]
        if not needs_all_errors(OodCheck(checked, checked), None):
            is_open[start:stop] = False
    shards = np.split(is_open, range(work.shard_images, len(is_open), work.shard_images))
    return {number: np.flatnonzero(rows) for number, rows in enumerate(shards) if rows.any()}


class Engine(Protocol):
    """Does the steps of some work. `progress` is told of images that are done."""

    def encode(self, progress: Progress) -> None:
        """Pass one: write every shard of latents that is not there, and the errors that `find_unmeasured` finds.

        Raises MisfitError and OSError.
        """

    def score(self, progress: Progress) -> None:
        """Pass two: write the scores of every partition that is not there. Raises MisfitError and OSError."""


class RowSink(Protocol):
    """Takes rows, in order."""

    def write(self, rows: Sequence[ScoreRow]) -> None: ...


def collect_scores(work: Work, sinks: Iterable[RowSink]) -> dict[str, GroupSummary]:
    """Give the rows of all partitions to the sinks, in order. Return what is said of each group.

    Raises InvalidInput where no image at all could be used, and OSError.
    """
    sinks = list(sinks)
    summaries: dict[str, GroupSummary] = {}
    for number in range(len(work.partitions)):
        info = read_info(work.folder.scores(number))
        summaries |= info.groups
    if not any(summary.n for summary in summaries.values()):
        raise InvalidInput(next(warning for each in summaries.values() for warning in each.warnings))
    for number in range(len(work.partitions)):
        for rows in read_rows(work.folder.scores(number)):
            for sink in sinks:
                sink.write(rows)
    return summaries
