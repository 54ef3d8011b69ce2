"""What becomes of a request's images on their way: encoded, then compared with a context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, Self, TypeVar

import numpy as np

from service.core.detect.context import Context
from service.core.detect.ood import OodCheck
from service.core.detect.scoring import Scores
from service.core.types import Float32Array, Float64Array
from service.errors import MisfitError
from service.images.spec import Uint8Array

Record = TypeVar("Record", OodCheck, Scores)


@dataclass(frozen=True)
class Encoded:
    """Images by their ids; the k of them that could be used, in order, and the others' errors by position.

    latents  (k, 2, L)
    pixels   (k, H, W, C), or (0, H, W, C) where nobody asked to keep them, or they are too many
    check    how familiar they look, or None where nobody asked
    first    where in the request the first of them stood
    """

    ids: Sequence[str]
    latents: Float32Array
    pixels: Uint8Array
    check: OodCheck | None
    errors: dict[int, MisfitError]
    first: int = 0

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All the images of at least one part; where one was checked, so were all that have usable images."""
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
        """Where each usable image stood."""
        return [position for position in range(len(self.ids)) if position not in self.errors]

    @property
    def native(self) -> Float32Array:
        """The latents of the images that do not look foreign."""
        return self.latents if self.check is None else self.latents[~self.check.is_ood]


@dataclass(frozen=True)
class Batch:
    """A request's images, and what they were compared with; `scores` is None where only a context came."""

    images: Encoded
    context: Context
    scores: Scores | None

    @property
    def positions(self) -> list[int]:
        """Where in the request each usable image stood."""
        return self.images.positions

    @property
    def typical(self) -> int | None:
        """The row of the usable image nearest to the context, None where no image came. A foreign one never is."""
        if self.scores is None:
            return None
        distances = self.scores.mahalanobis_squared
        if self.images.check is not None:
            distances = np.where(self.images.check.is_ood, np.inf, distances)
        return int(distances.argmin())

    def warned(self, warning: str) -> Self:
        """The same, with one more thing that the user should know."""
        return replace(self, context=replace(self.context, warnings=(*self.context.warnings, warning)))

    def pieces(self, size: int) -> Iterator[Self]:
        """The batch in pieces of `size` images, each scored as in the whole."""
        assert self.scores is not None, "pieces are of images"
        images = self.images
        positions = np.array(images.positions, dtype=np.intp)
        for start in range(0, len(images.ids), size):
            rows = slice(*np.searchsorted(positions, (start, start + size)).tolist())
            piece = Encoded(
                images.ids[start : start + size],
                images.latents[rows],
                images.pixels[rows],
                None if images.check is None else _cut(images.check, rows),
                {at - start: error for at, error in images.errors.items() if start <= at < start + size},
                first=start,
            )
            yield replace(self, images=piece, scores=_cut(self.scores, rows))


@dataclass(frozen=True)
class Drawn:
    """What was decoded from latents (k, L): the pictures (k, H, W, C), and what the encoder sees in them (k, 2, L)."""

    latents: Float64Array
    images: Uint8Array
    reencoded: Float32Array


def _cut(record: Record, rows: slice) -> Record:
    """`record` with only those rows of each of its arrays."""
    values: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(record)}
    arrays = {name: value[rows] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(record, **(values | arrays))
