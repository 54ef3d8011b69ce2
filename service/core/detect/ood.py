"""Out-of-distribution images: a photograph or a digit among the shapes, which latents alone may miss.

A decoder draws only what it was trained on. An encoder maps anything to latents, often near the population's centre, so
distances between latents do not tell a digit from a cube. What is decoded from them is no digit, though. An image is
out of distribution (the API says foreign) where its reconstruction error exceeds nearly every error of the population,
and stands out from the errors of its own batch: a camera that moved is not 300 foreign images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.core.distributions import normal_deviation, normal_ppf
from service.core.population import Familiarity
from service.core.types import LARGEST_OOD_LIMIT, BoolArray, Float64Array

# Of fewer images nobody knows what is usual among them.
FEWEST_IN_CONTEXT = 8
# How many deviations beyond the usual error of its batch an image stands out.
DEVIATIONS = 3.0
# In standard deviations above the median of a normal distribution: its 0.999 quantile, and its upper half's median.
QUANTILE_DEVIATIONS, UPPER_MEDIAN = (normal_ppf(quantile) for quantile in (0.999, 0.75))
# Where more than this share of a batch is foreign, the model does not know such images, and ranks none of them.
MOST_FOREIGN = 0.5


def is_ood(ood_ratio: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which images (n,) are out of distribution, from their error in units of the limit."""
    return np.asarray(ood_ratio > 1)


@dataclass(frozen=True)
class OodCheck:
    """How far each image is from what the model was trained on.

    error_ratio   (n,)  error in units of the population's limit; nan where it was not measured, and is at most 1
    times_median  (n,)  error in units of the population's median; nan where it was not measured
    error         what the error is, in words
    limit         the limit in this context, in units of the population's: 1, or more where its images differ as a
                  whole from those that the model was trained on
    """

    error_ratio: Float64Array
    times_median: Float64Array
    error: str = "reconstruction error"
    limit: float = 1.0

    @property
    def ood_ratio(self) -> Float64Array:
        """Return the error (n,) in units of the limit."""
        return self.error_ratio / self.limit

    @property
    def is_ood(self) -> BoolArray:
        """Return which images (n,) are out of distribution."""
        return is_ood(self.ood_ratio)

    @property
    def is_unusual(self) -> BoolArray:
        """Return which images (n,) are beyond the population's limit, and usual in their context all the same."""
        return np.asarray((self.error_ratio > 1) & ~self.is_ood)

    def reason(self, row: int) -> str:
        """Return one sentence on why the image in that row is out of distribution."""
        times = times_in_words(self.times_median[row])
        return f"outside what the model has seen: its {self.error} is {times} times the usual"

    def with_error(self, other: NDArray[np.floating], familiarity: Familiarity) -> Self:
        """Return the same check where another error (n,) counts as well, whichever is more."""
        return replace(
            self,
            error_ratio=np.maximum(self.error_ratio, other / familiarity.limit),
            times_median=np.maximum(self.times_median, other / familiarity.median),
        )

    def in_context(self, limit: float) -> Self:
        """Return the same check with another limit, that of a context."""
        return replace(self, limit=limit)

    @classmethod
    def concatenate(cls, checks: Sequence[Self]) -> Self:
        """Return the check of all rows of a request, from those of its chunks, of which there is at least one."""
        return cls(
            np.concatenate([check.error_ratio for check in checks]),
            np.concatenate([check.times_median for check in checks]),
            checks[0].error,
            checks[0].limit,
        )


def check(error: NDArray[np.floating], familiarity: Familiarity) -> OodCheck:
    """Compare the errors (n,) of images, such as their `reconstruction_error`, with the population's."""
    exact = error.astype(np.float64)
    return OodCheck(exact / familiarity.limit, exact / familiarity.median, familiarity.error)


def contextual_limit(error_ratio: Float64Array, familiarity: Familiarity) -> float:
    """Return the limit of a batch with errors (n,), all in units of the population's limit: at least 1.

    Errors are compared on a logarithmic scale. The limit moves up as far as the batch's usual error is above the
    population's, less one standard deviation of the population, and by DEVIATIONS times what the batch's deviation is
    above the population's. Usual error and deviation are the median and the median absolute deviation of the upper half
    of the errors: a nuisance may affect half of a batch, and up to a quarter of its images may be foreign. However
    usual it is in its batch, an error is foreign beyond LARGEST_OOD_LIMIT times the population's limit, or beyond twice
    the way from the population's median to its high quantile.
    """
    spread = float(np.log(familiarity.high / familiarity.median))
    largest = min(float(np.exp(2 * spread)), LARGEST_OOD_LIMIT)
    if len(error_ratio) < FEWEST_IN_CONTEXT:
        return 1.0
    own_deviation = spread / QUANTILE_DEVIATIONS
    own_usual = np.log(familiarity.median / familiarity.limit) + UPPER_MEDIAN * own_deviation
    logs = np.log(np.maximum(error_ratio, np.finfo(np.float64).tiny))
    upper = np.sort(logs)[len(logs) // 2 :]
    wider = max(float(normal_deviation(upper)) - own_deviation, 0.0)
    higher = float(np.median(upper)) - own_usual - own_deviation
    return float(np.clip(np.exp(min(higher + DEVIATIONS * wider, np.log(largest))), 1.0, largest))


def times_in_words(times: float) -> str:
    """Return a ratio with two digits, or without decimals from 10 on."""
    return f"{times:.2g}" if times < 10 else f"{times:,.0f}"
