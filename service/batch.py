"""What becomes of a request's images on their way: encoded, then compared with a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.context import Context
from service.errors import MisfitError
from service.foreign import Check
from service.images import Upload
from service.scoring import Scores


@dataclass(frozen=True)
class Encoded:
    """The k uploads that could be used, in order; the others' errors by position.

    latents  (k, 2, L)
    pixels   (k, H, W, C), or (0, H, W, C) where nobody asked to keep them
    check    how familiar they look, or None where nobody asked
    """

    uploads: Sequence[Upload]
    latents: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    check: Check | None
    errors: dict[int, MisfitError]

    @property
    def native(self) -> NDArray[np.float32]:
        """The latents of the images that do not look foreign."""
        return self.latents if self.check is None else self.latents[self.check.foreignness <= 1]


@dataclass(frozen=True)
class Batch:
    """A request's images, and what they were compared with; `scores` is None where only a context came."""

    images: Encoded
    context: Context
    scores: Scores | None

    @property
    def positions(self) -> list[int]:
        """Where in the request each usable image stood."""
        return [position for position in range(len(self.images.uploads)) if position not in self.images.errors]

    @property
    def typical(self) -> int | None:
        """The row of the usable image nearest to the context, None where no image came. A foreign one never is."""
        if self.scores is None:
            return None
        distances = self.scores.mahalanobis_squared
        if self.images.check is not None:
            distances = np.where(self.images.check.foreignness > 1, np.inf, distances)
        return int(distances.argmin())
