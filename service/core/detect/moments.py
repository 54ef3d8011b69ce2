"""Count, mean and scatter of a set of points. Two sets' moments merge exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from service.core.types import Float64Array


@dataclass(frozen=True)
class Moments:
    """Weighted count, mean and scatter: the sufficient statistics of a Gaussian.

    size     sum of the weights
    mean     (d,)
    scatter  (d, d)  sum of weight * (x - mean)(x - mean)'. Points are centred before they are squared: a sum of raw
                     squares loses every digit where the mean is large beside the spread
    """

    size: float
    mean: Float64Array
    scatter: Float64Array

    @classmethod
    def of(cls, points: Float64Array, weights: Float64Array | None = None) -> Self:
        """Return the moments of `points` (n, d), n >= 1, with `weights` (n,): none negative, not all zero."""
        weights = np.ones(len(points)) if weights is None else weights
        size = float(weights.sum())
        mean = weights @ points / size
        centred = points - mean
        return cls(size, mean, (centred * weights[:, None]).T @ centred)

    def merge(self, other: Self) -> Self:
        """Return the moments of both sets of points together (Chan, Golub & LeVeque 1983)."""
        size = self.size + other.size
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.size / size)
        between = np.outer(gap, gap) * (self.size * other.size / size)
        return type(self)(size, mean, self.scatter + other.scatter + between)
