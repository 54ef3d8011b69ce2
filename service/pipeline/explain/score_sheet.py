"""The answer of /score as one contact sheet: the images by rank, each with its id, rank, flag and reason below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.api.options import SHEET_IMAGES
from service.core.types import IndexArray
from service.errors import InvalidOption, quoted
from service.images.pictures.ranked_sheet import Tile, ranked_sheet_png
from service.images.spec import Uint8Array
from service.pipeline.batch import Batch

# Unreadable images that the title of a sheet names.
NAMED_ERRORS = 3


@dataclass(frozen=True)
class ScoreSheet:
    """One page of the sheet. Its k images are the usable ones in `rows`, the most outlying first.

    rows     (k,)
    pixels   (k, H, W, C)
    reasons  (k,)
    page     from 1 to `pages`
    """

    batch: Batch
    rows: IndexArray
    pixels: Uint8Array
    reasons: Sequence[str]
    page: int

    def as_sheet(self) -> bytes:
        """Return the page as PNG."""
        return ranked_sheet_png(self._title(), [self._tile(place) for place in range(len(self.rows))])

    def _tile(self, place: int) -> Tile:
        row = self.rows[place]
        scores, images = self.batch.require_scores(), self.batch.images
        is_flagged = bool(scores.is_outlier[row])
        is_foreign = images.check is not None and bool(images.check.is_ood[row])
        flag = ", flagged as foreign" if is_foreign and is_flagged else ", flagged" if is_flagged else ""
        id_ = images.ids[self.batch.positions[row]]
        return Tile(self.pixels[place], id_, f"rank {scores.rank[row]}{flag}", self.reasons[place], is_flagged)

    def _title(self) -> list[str]:
        """Return what holds for the whole batch: its size and flags, what it was compared with, warnings, errors."""
        images, context = self.batch.images, self.batch.context
        flagged = int(self.batch.require_scores().is_outlier.sum())
        sources = {"batch": "each other", "reference": "a reference", "population": "the model's population"}
        count = f"{len(images.ids)} image{'' if len(images.ids) == 1 else 's'}"
        title = [
            f"{count}, {flagged or 'none'} flagged, compared with {sources[context.source]} ({context.estimator}); "
            f"reliability is {context.reliability}."
        ]
        title += context.warnings
        if images.errors:
            title.append(f"Not shown, as they could not be used: {len(images.errors)}.")
            title += [f"{quoted(images.ids[at])}: {error}" for at, error in list(images.errors.items())[:NAMED_ERRORS]]
        if (pages := count_pages(self.batch)) > 1:
            following = f"; the next one is page={self.page + 1}" if self.page < pages else ""
            title.append(f"Page {self.page} of {pages}{following}.")
        return title


def count_pages(batch: Batch) -> int:
    """Return how many pages the usable images of a batch fill."""
    return -(-len(batch.positions) // SHEET_IMAGES)


def select_page(batch: Batch, page: int) -> IndexArray:
    """Return the rows of the usable images on a page, the most outlying first. Raises InvalidOption beyond the last."""
    if page > (pages := count_pages(batch)):
        raise InvalidOption(
            f"page is {page}; {len(batch.positions)} images make {pages} page{'' if pages == 1 else 's'} of "
            f"{SHEET_IMAGES}.",
            "The first is page=1.",
        )
    by_rank = np.argsort(batch.require_scores().rank)
    return by_rank[(page - 1) * SHEET_IMAGES : page * SHEET_IMAGES]
