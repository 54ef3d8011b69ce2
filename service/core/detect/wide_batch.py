"""Batches that are about as wide as the population: a folder that was learned, sent as a whole.

The ratio of the densities of batch and population says nothing there: both are the same. What is left is how far off an
image lies: its squared distance in the latents, and its error, which says how much of it no latent knows. Both count as
in a Gaussian (probabilistic principal components, Tipping & Bishop 1999): the error is that of many directions at once,
a multiple of chi-squared, and its spread over the batch tells of how many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import noise_floor, population_power
from service.core.detect.moments import Moments
from service.core.detect.standardize import PopulationUnits
from service.core.distributions import normal_deviation
from service.core.types import BoolArray, Float64Array

# From so much likeness on, a batch is wide: what is usual in it is told by this share of the images, those with the
# smallest errors. Nothing else tells strangers there, and they would hide themselves.
WIDE, USUAL = 0.5, 0.95
# The errors of a batch spread by at least so much of their size.
LEAST_SPREAD = 0.1


def likeness(moments: Moments | None, posterior_variance: Float64Array, units: PopulationUnits) -> float:
    """Return how much plain moments are those of a graded population, from 0 to 1; 0 for too few images, and where no
    latent varies.
    """
    if not units.population.graded or moments is None or not 0 < 2 * units.live.size < moments.size:
        return 0.0
    floor = np.diag(noise_floor(posterior_variance, units))
    background = Fit(np.zeros_like(units.unit), units.correlation + floor)
    plain = plain_fit(moments, units)
    return (1.0 - population_power(Fit(plain.location, plain.covariance + floor), background)) ** 2


def plain_fit(moments: Moments, units: PopulationUnits) -> Fit:
    """Return the moments of all images of a context, in population units over the live latents, without noise."""
    own = units.moments_in_units(moments)
    return Fit(own.mean, own.scatter / (own.size - 1))


def pool(fit: Fit, other: Fit, share: float) -> Fit:
    """Return the moments of a mixture of two Gaussians, of which `other` has this share."""
    gap = fit.location - other.location
    return Fit(
        fit.location - share * gap,
        (1 - share) * fit.covariance + share * other.covariance + share * (1 - share) * np.outer(gap, gap),
    )


def is_wide(latents: NDArray[np.floating], units: PopulationUnits) -> bool:
    """Return whether a batch with latents (n, 2, L) is about as wide as the population."""
    if not units.population.graded or not 0 < 2 * units.live.size < len(latents):
        return False
    means, logvars = latents.astype(np.float64).transpose(1, 0, 2)
    return likeness(Moments.of(means), np.exp(np.clip(logvars, -50, 50)).mean(axis=0), units) >= WIDE


def error_odds(error: Float64Array, native: BoolArray) -> Float64Array:
    """Return what the errors (n,) add to the log odds: half their squared distance, 0 for the median `native` one."""
    logs = np.log(np.maximum(error[native], np.finfo(np.float32).tiny))
    spread = max(float(normal_deviation(logs)), LEAST_SPREAD)
    return np.asarray((error / np.exp(np.median(logs)) - 1) / spread**2)
