"""The context: what is normal here, as a location and a covariance of the latents, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from service.bundle import Population

Float64Array = NDArray[np.float64]
Estimator = Literal["leave_one_out", "robust", "mixture", "ledoit_wolf", "oas", "mcd"]
Source = Literal["batch", "reference", "population"]
# Population standard deviations beyond which a latent is no further out: it keeps every square finite.
FURTHEST = 1e3


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


@dataclass(frozen=True)
class PopulationUnits:
    """The live latents, from the population's mean, in its standard deviations; dead ones are left out.

    live  (d,)  indices of the live latents
    unit  (d,)  their standard deviations over the population
    """

    population: Population
    live: NDArray[np.intp]
    unit: Float64Array

    @classmethod
    def of(cls, population: Population) -> Self:
        live = population.live_dims
        return cls(population, live, np.sqrt(np.diag(population.covariance)[live]))

    def points(self, latents: NDArray[np.floating]) -> Float64Array:
        """Encoder means (n, d) of latents (n, 2, L)."""
        mean = latents[:, 0, self.live].astype(np.float64)
        centred = (mean - self.population.location[self.live]) / self.unit
        return np.clip(centred, -FURTHEST, FURTHEST)

    def posterior_variance(self, latents: NDArray[np.floating]) -> Float64Array:
        """Mean posterior variance (d,) of latents (n, 2, L)."""
        logvar = latents[:, 1, self.live].astype(np.float64)
        variance: Float64Array = np.exp(np.clip(logvar, -50, 50)).mean(axis=0)
        return np.asarray(variance / self.unit**2)

    def correlation(self) -> Float64Array:
        """The population's covariance (d, d) in these units."""
        covariance: Float64Array = self.population.covariance[np.ix_(self.live, self.live)]
        return np.asarray(covariance / np.outer(self.unit, self.unit))

    def location_in_latents(self, location: Float64Array) -> Float64Array:
        """(d,) -> (L,); a dead latent takes the population's mean."""
        whole = self.population.location.copy()
        whole[self.live] += self.unit * location
        return whole

    def covariance_in_latents(self, covariance: Float64Array) -> Float64Array:
        """(d, d) -> (L, L); a dead latent takes the population's variance, uncorrelated."""
        # A latent that never moves at all would make the whole singular.
        whole = np.diag(np.maximum(np.diag(self.population.covariance), np.finfo(np.float64).tiny))
        whole[np.ix_(self.live, self.live)] = covariance * np.outer(self.unit, self.unit)
        return whole
