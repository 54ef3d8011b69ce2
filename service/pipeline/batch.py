"""A request's images on their way through the pipeline: encoded, scored, and decoded again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, Self, TypeVar

import numpy as np

from service.core.decide.kinds import Group
from service.core.detect.context import Context
from service.core.detect.ood import OodCheck
from service.core.detect.scoring import Scores
from service.core.types import BoolArray, Float32Array, Float64Array, IndexArray
from service.errors import MisfitError
from service.images.spec import Uint8Array

# Where a batch cannot tell which images are outliers, this share of them, the first, get a reason.
FIRST_SHARE = 0.02


@dataclass(frozen=True)
class NearestImages:
    """The m nearest other images of each of k usable images, rising by distance.

    ids                of all images of the request
    positions  (k, m)  in the request
    distances  (k, m)  in population units
    shown              how many of them each item shows; where it is 0, only those have any that stand out
    """

    ids: Sequence[str]
    positions: IndexArray
    distances: Float64Array
    shown: int


Record = TypeVar("Record", OodCheck, Scores, NearestImages)


@dataclass(frozen=True)
class EncodedImages:
    """Images by their ids: the latents of the k usable ones, in order, and the errors of the others by position.

    latents  (k, 2, L)
    pixels   (k, H, W, C), or (0, H, W, C) where they were not kept
    check    how far off their reconstructions are, or None where that was not checked
    first    the position in the request of the first of them
    """

    ids: Sequence[str]
    latents: Float32Array
    pixels: Uint8Array
    check: OodCheck | None
    errors: dict[int, MisfitError]
    first: int = 0

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join at least one part. Either all parts with usable images were checked, or none."""
        checks = [part.check for part in parts if part.check is not None]
        starts = accumulate((len(part.ids) for part in parts[:-1]), initial=0)
        return cls(
            [id_ for part in parts for id_ in part.ids],
            np.concatenate([part.latents for part in parts]),
            np.concatenate([part.pixels for part in parts]),
            OodCheck.concatenate(checks) if checks else None,
            {start + at: error for start, part in zip(starts, parts, strict=True) for at, error in part.errors.items()},
        )

    @property
    def positions(self) -> list[int]:
        """Return the position of each usable image."""
        return [position for position in range(len(self.ids)) if position not in self.errors]

    @property
    def native(self) -> Float32Array:
        """Return the latents of the images that are not out of distribution."""
        return self.latents if self.check is None else self.latents[~self.check.is_ood]


@dataclass(frozen=True)
class Batch:
    """A request's images and their context; `scores` is None where no images came.

    groups      the images that are alike and apart from the rest, by their positions in the request
    nearest     None where the options ask for none
    duplicates  sets of images that are duplicates, by their positions in the request; None where nobody asked
    """

    images: EncodedImages
    context: Context
    scores: Scores | None
    groups: tuple[Group, ...] = ()
    nearest: NearestImages | None = None
    duplicates: tuple[IndexArray, ...] | None = None

    @property
    def positions(self) -> list[int]:
        """Return the position in the request of each usable image."""
        return self.images.positions

    @property
    def typical(self) -> int | None:
        """Return the row of the usable image nearest to the context, foreign ones left out; None without images."""
        if self.scores is None:
            return None
        distances = self.scores.mahalanobis_squared
        if self.images.check is not None:
            distances = np.where(self.images.check.is_ood, np.inf, distances)
        return int(distances.argmin())

    @property
    def stands_out(self) -> BoolArray:
        """Return which usable images (n,) have something to be said of: the flagged ones, and those that rank first
        where the batch cannot tell which are outliers.
        """
        scores, calibration = self.require_scores(), self.context.calibration
        if calibration is None or calibration.tells_outliers or self.context.source != "batch":
            return scores.is_outlier
        return np.asarray(scores.is_outlier | (scores.rank <= FIRST_SHARE * len(scores.rank)))

    def require_scores(self) -> Scores:
        """Return the scores of a batch with images."""
        assert self.scores is not None, "scores are of images"
        return self.scores

    def with_warnings(self, *warnings: str) -> Self:
        """Return the same batch with more warnings."""
        return replace(self, context=replace(self.context, warnings=(*self.context.warnings, *warnings)))

    def split(self, size: int) -> Iterator[Self]:
        """Yield the batch in parts of `size` images, with the scores of the whole.

        The first part has the groups and the duplicates of the whole.
        """
        images, scores = self.images, self.require_scores()
        positions = np.array(images.positions, dtype=np.intp)
        for start in range(0, len(images.ids), size):
            rows = slice(*np.searchsorted(positions, (start, start + size)).tolist())
            part = EncodedImages(
                images.ids[start : start + size],
                images.latents[rows],
                images.pixels[rows],
                None if images.check is None else _take_rows(images.check, rows),
                {at - start: error for at, error in images.errors.items() if start <= at < start + size},
                first=start,
            )
            yield replace(
                self,
                images=part,
                scores=_take_rows(scores, rows),
                groups=self.groups if start == 0 else (),
                nearest=None if self.nearest is None else _take_rows(self.nearest, rows),
                duplicates=self.duplicates if start == 0 else None,
            )


@dataclass(frozen=True)
class DecodedImages:
    """Images that were decoded from latents.

    latents    (k, L)
    images     (k, H, W, C)
    reencoded  (k, 2, L)  the latents that the encoder finds in the images
    """

    latents: Float64Array
    images: Uint8Array
    reencoded: Float32Array


def _take_rows(record: Record, rows: slice) -> Record:
    """Return `record` with only those rows of each of its arrays."""
    values: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(record)}
    arrays = {name: value[rows] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(record, **(values | arrays))
