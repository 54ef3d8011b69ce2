"""The context: what is normal here, as a location and a covariance over the latents, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Estimator = Literal["leave_one_out", "robust", "mixture", "ledoit_wolf", "oas", "mcd"]
Source = Literal["batch", "reference", "population"]


@dataclass(frozen=True)
class Context:
    """The normal images' moments, and where they came from.

    location       (L,)    centre of the normal images' encoder means
    covariance     (L, L)  their covariance, noise floor included: positive definite over the live latents;
                           a dead latent keeps the population's moments and is uncorrelated with the others
    size                   number of images that the moments were estimated from
    source                 "batch": the scored images themselves; "reference": images supplied apart;
                           "population": too few images for a context of their own
    contamination          estimated share of outliers among those images; None where nothing estimates it
    reliability            "low" where the moments rest on too few images, or on too many outliers
    warnings               what the user should know, as sentences
    """

    location: Float64Array
    covariance: Float64Array
    size: int
    source: Source
    estimator: Estimator
    contamination: float | None
    reliability: Literal["high", "low"]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Moments:
    """Weighted count, mean and scatter about that mean: the sufficient statistics of a Gaussian.

    size     sum of the weights
    mean     (d,)
    scatter  (d, d)  sum of weight * (x - mean)(x - mean)', centred before it is squared: a sum of raw
                     squares loses every digit once the mean is large beside the spread
    """

    size: float
    mean: Float64Array
    scatter: Float64Array

    @classmethod
    def of(cls, points: Float64Array, weights: Float64Array | None = None) -> Self:
        """Moments of `points` (n, d), n >= 1, with `weights` (n,) that are not negative and not all zero."""
        weights = np.ones(len(points)) if weights is None else weights
        size = float(weights.sum())
        mean = weights @ points / size
        centred = points - mean
        return cls(size, mean, (centred * weights[:, None]).T @ centred)
