"""Foreign images: a photograph or a digit among the shapes, which a context of latents alone may miss.

A decoder draws nothing but what it was trained on. An encoder maps anything to latents, often near the population's
centre, so distances between latents do not tell a digit from a cube, but what is drawn from them is no digit. An image
is foreign where its reconstruction error exceeds nearly every error of the population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.core.population import Familiarity

Float64Array = NDArray[np.float64]

# The limit, in units of the population's high quantile: room for images of the same kind that came by another way than
# the population did, through another camera, renderer, size or compression.
MARGIN = 3.0


@dataclass(frozen=True)
class Check:
    """How far each image is from what the model has seen.

    foreignness   (n,)  reconstruction error in units of the limit: foreign above 1
    times_median  (n,)  the same in units of the population's median
    """

    foreignness: Float64Array
    times_median: Float64Array

    def reason(self, row: int) -> str:
        """Why the image in that row is foreign, as a sentence."""
        times = f"{self.times_median[row]:.2g}" if self.times_median[row] < 10 else f"{self.times_median[row]:,.0f}"
        return f"outside what the model has seen: reconstruction error {times} times the population's median"

    @classmethod
    def concatenate(cls, checks: Sequence[Self]) -> Self:
        """The checks of all the rows of a request, from those of its chunks, of which there is at least one."""
        return cls(
            np.concatenate([check.foreignness for check in checks]),
            np.concatenate([check.times_median for check in checks]),
        )


def check(error: NDArray[np.floating], familiarity: Familiarity) -> Check:
    """Compare the `reconstruction_error` (n,) of images with the population's."""
    exact = error.astype(np.float64)
    return Check(exact / (MARGIN * familiarity.high), exact / familiarity.median)


def reconstruction_error(images: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> Float64Array:
    """Mean squared difference (n,), in grey levels squared, between images and `decoded`, both (n, H, W, C).

    `decoded` is what the decoder makes of the images' means.
    """
    # One image at a time: the differences stay in the processor's cache, which is several times faster.
    differences = (
        np.subtract(image, drawn, dtype=np.int16).astype(np.float32)
        for image, drawn in zip(images, decoded, strict=True)
    )
    squares = np.array([np.vdot(difference, difference) for difference in differences], dtype=np.float64)
    return squares / np.prod(images.shape[1:])
