"""Latents in population units: live latents only, scaled to the population's mean 0 and standard deviation 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.core.detect.context import Context
from service.core.detect.density_ratio import row_bytes
from service.core.detect.moments import Moments
from service.core.population import Population
from service.core.types import Float64Array, IndexArray

# Points are clipped at this many population standard deviations, which keeps every square finite.
FURTHEST = 1e3
# As many of the population show what images are that do not belong to a context.
DRAWS = 250
# Fewer distinct points than this are no batch: copies then count.
FEWEST_DISTINCT = 3


@dataclass(frozen=True)
class PopulationUnits:
    """Conversion between latents (L,) and points (d,): live latents in population standard deviations from its mean.

    live  (d,)  indices of the live latents
    unit  (d,)  their standard deviations over the population
    """

    population: Population
    live: IndexArray
    unit: Float64Array

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, population: Population) -> Self:
        live = population.live_dims
        return cls(population, live, np.sqrt(np.diag(population.covariance)[live]))

    def points(self, latents: NDArray[np.floating]) -> Float64Array:
        """Return points (n, d) of latents (n, 2, L), or of means (n, L)."""
        mean = (latents[:, 0] if latents.ndim == 3 else latents)[:, self.live].astype(np.float64)
        centred = (mean - self.population.location[self.live]) / self.unit
        return np.clip(centred, -FURTHEST, FURTHEST)

    @cached_property
    def sample(self) -> Float64Array | None:
        """Return the population's sample as points (p, d), None where the bundle holds none."""
        return None if self.population.sample is None else self.points(self.population.sample)

    @cached_property
    def draws(self) -> Float64Array:
        """Return some DRAWS points (p, d) of the population, always the same: of its sample, else of its Gaussian."""
        sample = self.sample
        if sample is None:
            factor = np.linalg.cholesky(self.correlation)
            return np.asarray(np.random.default_rng(0).standard_normal((DRAWS, len(factor))) @ factor.T)
        return np.ascontiguousarray(sample[:: -(-len(sample) // DRAWS)])

    @cached_property
    def correlation(self) -> Float64Array:
        """Return the population's covariance (d, d) in these units."""
        return np.asarray(self.population.covariance[self._square] / self._scales)

    @cached_property
    def _square(self) -> tuple[IndexArray, ...]:
        """Return what takes the live latents (d, d) of a covariance (L, L)."""
        return np.ix_(self.live, self.live)

    @cached_property
    def _scales(self) -> Float64Array:
        """Return the product (d, d) of the standard deviations of each two live latents."""
        return np.outer(self.unit, self.unit)

    def in_units(self, context: Context) -> tuple[Float64Array, Float64Array]:
        """Return location (d,) and covariance (d, d) of `context` in these units: the inverse of the methods below."""
        location = (context.location[self.live] - self.population.location[self.live]) / self.unit
        return location, np.asarray(context.covariance[self._square] / self._scales)

    def moments_in_units(self, moments: Moments) -> Moments:
        """Return moments of latents (L,) in these units (d,)."""
        location = (moments.mean - self.population.location)[self.live] / self.unit
        return Moments(moments.size, location, moments.scatter[self._square] / self._scales)

    def location_in_latents(self, location: Float64Array) -> Float64Array:
        """Return a location (d,) as latents (L,). A dead latent takes the population's mean."""
        whole = self.population.location.copy()
        whole[self.live] += self.unit * location
        return whole

    def covariance_in_latents(self, covariance: Float64Array) -> Float64Array:
        """Return a covariance (d, d) over all latents (L, L). A dead latent takes the population's variance,
        uncorrelated.
        """
        # A latent that never varies would make the matrix singular.
        whole = np.diag(np.maximum(np.diag(self.population.covariance), np.finfo(np.float64).tiny))
        whole[self._square] = covariance * self._scales
        return whole


def distinct_rows(points: Float64Array) -> IndexArray:
    """Return the first row (m,) of each of points (n, d), to three decimals. If most are copies of one, return all."""
    first: dict[bytes, int] = {}
    places = [first.setdefault(row, place) for place, row in enumerate(row_bytes(np.round(points, 3)))]
    if len(first) < FEWEST_DISTINCT or np.bincount(places).max() > len(points) / 2:
        return np.arange(len(points))
    return np.array(list(first.values()))


def canonical_order(points: Float64Array) -> IndexArray:
    """Return an order (n,) of points (n, d) that does not depend on how they came."""
    return np.lexsort(np.vstack([np.zeros(len(points)), points.T]))
