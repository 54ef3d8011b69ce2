"""Out-of-distribution images: a photograph or a digit among the shapes, which latents alone may miss.

A decoder draws only what it was trained on. An encoder maps anything to latents, often near the population's centre, so
distances between latents do not tell a digit from a cube. What is decoded from them is no digit, though. An image is
out of distribution (the API says foreign) where its reconstruction error exceeds nearly every error of the population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.core.population import Familiarity
from service.core.types import Float64Array


def is_ood(ood_ratio: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which images (n,) are out of distribution, from their error in units of the limit."""
    return np.asarray(ood_ratio > 1)


@dataclass(frozen=True)
class OodCheck:
    """How far each image is from what the model was trained on.

    ood_ratio     (n,)  reconstruction error in units of the limit
    times_median  (n,)  reconstruction error in units of the population's median
    error         what the error is, in words
    """

    ood_ratio: Float64Array
    times_median: Float64Array
    error: str = "reconstruction error"

    @property
    def is_ood(self) -> NDArray[np.bool_]:
        """Return which images (n,) are out of distribution."""
        return is_ood(self.ood_ratio)

    def reason(self, row: int) -> str:
        """Return one sentence on why the image in that row is out of distribution."""
        times = f"{self.times_median[row]:.2g}" if self.times_median[row] < 10 else f"{self.times_median[row]:,.0f}"
        return f"outside what the model has seen: {self.error} {times} times the population's median"

    @classmethod
    def concatenate(cls, checks: Sequence[Self]) -> Self:
        """Return the check of all rows of a request, from those of its chunks, of which there is at least one."""
        return cls(
            np.concatenate([check.ood_ratio for check in checks]),
            np.concatenate([check.times_median for check in checks]),
            checks[0].error,
        )


def check(error: NDArray[np.floating], familiarity: Familiarity) -> OodCheck:
    """Compare the errors (n,) of images, such as their `reconstruction_error`, with the population's."""
    exact = error.astype(np.float64)
    return OodCheck(exact / (familiarity.margin * familiarity.high), exact / familiarity.median, familiarity.error)


def reconstruction_error(images: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> Float64Array:
    """Return the mean squared difference (n,), in grey levels squared, of images and `decoded`, both (n, H, W, C).

    `decoded` is what the decoder draws from the means of the images.
    """
    # One image at a time: the differences stay in the processor's cache, which is several times faster.
    differences = (
        np.subtract(image, drawn, dtype=np.int16).astype(np.float32)
        for image, drawn in zip(images, decoded, strict=True)
    )
    squares = np.array([np.vdot(difference, difference) for difference in differences], dtype=np.float64)
    return squares / np.prod(images.shape[1:])
