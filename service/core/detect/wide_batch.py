"""Batches that are about as wide as the population: a folder that was learned, sent as a whole.

The ratio of the densities of batch and population says nothing there: both are the same. What is left is how far off an
image lies: its squared distance in the latents, and its error, which says how much of it no latent knows. Both are of
many directions at once (probabilistic principal components, Tipping & Bishop 1999): multiples of chi-squared. Of how
many, their spread over the batch tells. Where some photographs have extreme colours, distances spread widely, as if
they were of few directions: then errors count for more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import noise_floor, population_power
from service.core.detect.moments import Moments
from service.core.detect.standardize import PopulationUnits
from service.core.types import BoolArray, Float64Array

# From so much likeness on, a batch is wide: what is usual in it is told by this share of the images, those that are
# furthest from foreign. Nothing else tells strangers there, and they would hide themselves.
WIDE, USUAL = 0.5, 0.95
# Errors and squared distances of a batch spread by at least so much of their size. How far the large ones spread is
# told by this quantile, a standard deviation above the median: kinds of images may differ in how small theirs are.
LEAST_SPREAD, LARGE = 0.1, 0.8413


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


def usual_images(native: BoolArray, error: NDArray[np.floating] | None) -> BoolArray:
    """Return the USUAL share (n,) of the `native` images (n,), those with the smallest errors (n,); all where none are
    known.
    """
    if error is None or not native.any():
        return native
    return np.asarray(native & (error <= np.quantile(error[native], USUAL)))


def error_odds(error: Float64Array, distance: Float64Array) -> Float64Array:
    """Return what the errors (n,) add to half the squared distances (n,) of the same images, 0 for the median error."""
    usual, directions = _fit_chi_squared(error)
    usual_distance, axes = _fit_chi_squared(distance)
    return np.asarray((error / usual - 1) * directions / axes * usual_distance / 2)


def _fit_chi_squared(values: Float64Array) -> tuple[float, float]:
    """Return the median of values (n,), and the degrees of freedom of the chi-squared of which they are a multiple."""
    usual, large = np.maximum(np.quantile(values, (0.5, LARGE)), np.finfo(np.float32).tiny).tolist()
    return usual, 2 / max(np.log(large / usual), LEAST_SPREAD) ** 2
