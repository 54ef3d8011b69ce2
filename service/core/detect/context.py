"""The context: what is normal here, as a location and a covariance of the latents, and how far to trust it.

A context that was fitted to images travels: it keeps what scoring, explaining and editing need, and the plain
moments of its images, which merge exactly with those of other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from service.core.detect.density_ratio import Kernel
from service.core.population import Population

Float64Array = NDArray[np.float64]
Estimator = Literal["density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd"]
# A merged context keeps no images to estimate from: its moments are what its parts' images have.
ContextEstimator = Literal[
    "density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd", "moments"
]
DEFAULT_ESTIMATOR: Estimator = "density_ratio"  # of a bundle that names no other
Source = Literal["batch", "reference", "population"]
Reliability = Literal["high", "low"]
# Population standard deviations beyond which a latent is no further out: it keeps every square finite.
FURTHEST = 1e3


@dataclass(frozen=True)
class Context:
    """The normal images' moments, and where they came from.

    location       (L,)    centre of the normal images' encoder means
    covariance     (L, L)  their covariance, noise floor included: positive definite over the live latents;
                           a dead latent keeps the population's moments and is uncorrelated with the others
    moments                of the encoder means of all images that the context was fitted to, outliers included;
                           None where it was fitted to none
    posterior_variance     (L,)    mean posterior variance of those images: how exactly the encoder knows each latent
    radius_squared         squared Mahalanobis distance within which 99% of the normal images lie
    source                 "batch": the scored images themselves; "reference": images supplied apart, now or
                           when the context was fitted; "population": too few images for a context of their own
    contamination          estimated share of outliers among those images; None where nothing estimates it
    reliability            "low" where the moments rest on too few images, or on too many outliers
    warnings               what the user should know, as sentences
    kernel                 the images themselves, as far as `density_ratio` compares others with them
    """

    location: Float64Array
    covariance: Float64Array
    moments: Moments | None
    posterior_variance: Float64Array
    radius_squared: float
    source: Source
    estimator: ContextEstimator
    contamination: float | None
    reliability: Reliability
    warnings: tuple[str, ...]
    kernel: Kernel | None = None

    @property
    def size(self) -> int:
        """Number of images that the context was fitted to."""
        return 0 if self.moments is None else round(self.moments.size)


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

    def merge(self, other: Self) -> Self:
        """The moments of both sets of points together (Chan, Golub & LeVeque 1983)."""
        size = self.size + other.size
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.size / size)
        between = np.outer(gap, gap) * (self.size * other.size / size)
        return type(self)(size, mean, self.scatter + other.scatter + between)


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
        """Encoder means (n, d) of latents (n, 2, L), or of means (n, L)."""
        mean = (latents[:, 0] if latents.ndim == 3 else latents)[:, self.live].astype(np.float64)
        centred = (mean - self.population.location[self.live]) / self.unit
        return np.clip(centred, -FURTHEST, FURTHEST)

    def sample(self) -> Float64Array | None:
        """The population's sample (p, d), None where the bundle holds none."""
        return None if self.population.sample is None else self.points(self.population.sample)

    def correlation(self) -> Float64Array:
        """The population's covariance (d, d) in these units."""
        covariance: Float64Array = self.population.covariance[np.ix_(self.live, self.live)]
        return np.asarray(covariance / np.outer(self.unit, self.unit))

    def in_units(self, context: Context) -> tuple[Float64Array, Float64Array]:
        """Location (d,) and covariance (d, d) of `context`, undoing the two methods below."""
        location = (context.location[self.live] - self.population.location[self.live]) / self.unit
        covariance = context.covariance[np.ix_(self.live, self.live)] / np.outer(self.unit, self.unit)
        return location, np.asarray(covariance)

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
