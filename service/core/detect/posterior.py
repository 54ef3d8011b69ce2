"""How an image stands to a context: its distance, its odds of being an outlier, and whether it is inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2, gamma

from service.core.detect import density_ratio
from service.core.detect.context import Context
from service.core.detect.gaussian import Fit, log_density, mahalanobis_squared, marginal_distances
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import Float64Array, Source

# The noise floor, in units of the encoder's mean posterior variance.
FLOOR_SHARE = 0.25
# The share of outliers before anything is seen, and how many images that guess is worth.
PRIOR_CONTAMINATION, PRIOR_WEIGHT = 0.05, 5.0
# Outliers follow the population, but this share of them lies anywhere within this many times its spread.
FAR_SHARE, FAR = 1e-3, 5.0
SHARE_ITERATIONS = 50
SMALLEST_SCALE = 1e-6


def mahalanobis(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Squared distance (n,) of latents (n, 2, L) or of means (n, L) to `context`, over the live latents."""
    units = PopulationUnits.of(population)
    return mahalanobis_squared(units.points(latents), *units.in_units(context))


def log_odds(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Log posterior odds (n,) of outlier against inlier of latents (n, 2, L) or means (n, L), given the latents."""
    units = PopulationUnits.of(population)
    known = context.contamination if context.source == "batch" else None
    share = PRIOR_CONTAMINATION if known is None else known
    points, sample = units.points(latents), units.sample()
    gaussian = outlier_log_odds(points, normal_fit(context, units), background_fit(context, units), share)
    if context.kernel is None or sample is None:
        return gaussian
    base = np.log(share / (1 - share)) - gaussian
    return density_ratio.log_odds(density_ratio.log_ratios(points, context.kernel, sample, base), context.kernel, share)


def inside(latents: NDArray[np.floating], context: Context, population: Population) -> NDArray[np.bool_]:
    """Whether each of latents (n, 2, L) or means (n, L) lies among the normal images: near enough, and likelier so."""
    near = mahalanobis(latents, context, population) <= context.radius_squared
    return near & (log_odds(latents, context, population) <= 0)


def marginal_log_ratios(
    points: Float64Array, context: Context, units: PopulationUnits, axes: NDArray[np.bool_]
) -> Float64Array:
    """Log ratios (s, n) of two Gaussians, `context` to population, at points (n, d), on sets of axes (s, d).

    On all axes this is the log odds of `outlier_log_odds` the other way round.
    """
    inlier, inlier_volume = marginal_distances(points, normal_fit(context, units), axes)
    outlier, outlier_volume = marginal_distances(points, background_fit(context, units), axes)
    tail = far_tail(outlier, axes.sum(axis=1)[:, None])
    return 0.5 * (outlier - inlier) + (outlier_volume - inlier_volume)[:, None] - tail


def outlier_log_odds(points: Float64Array, fit: Fit, background: Fit, share: float) -> Float64Array:
    """Log posterior odds (n,) of outlier against inlier, where `share` of the images are outliers.

    Outliers follow the population's Gaussian, with a far tail.
    """
    distance = mahalanobis_squared(points, background.location, background.covariance)
    outlier = log_density(points, background.location, background.covariance) + far_tail(distance, points.shape[1])
    inlier = log_density(points, fit.location, fit.covariance)
    odds: Float64Array = outlier - inlier + np.log(share / (1 - share))
    return odds


def far_tail(distance: Float64Array, d: int | NDArray[np.int64]) -> Float64Array:
    """What adds to the log density of outliers at a squared `distance` to the population, over d axes.

    A few of them may lie far outside it: there both Gaussians are nil and their ratio means nothing, so that this
    tail takes over; within the population it is nil itself.
    """
    far = np.log(FAR_SHARE) - d * np.log(FAR) + 0.5 * distance * (1 - FAR**-2)
    return np.asarray(np.logaddexp(0, far))


def two_group_posterior(
    distances: Float64Array, native: NDArray[np.bool_], fit: Fit, background: Fit, source: Source
) -> Float64Array:
    """Posterior probability (n,) that a squared distance is an outlier's (two groups, Efron 2008).

    Inliers: chi-square with d degrees of freedom, in a batch scaled to the median distance, since outliers
    inflate moments that are not robust. Outliers: a gamma with the mean and variance that a population
    draw's distance has. The share of outliers is fitted by EM in a batch, over the images that are `native` (n,),
    not foreign, and fixed against a reference.
    Short of where the two densities' ratio is least, that least ratio counts: the posterior never falls as
    the distance grows.
    """
    gap = fit.location - background.location
    ratio = np.linalg.solve(fit.covariance, background.covariance)
    pull = np.linalg.solve(fit.covariance, gap)
    mean = np.trace(ratio) + gap @ pull
    variance = 2 * np.trace(ratio @ ratio) + 4 * pull @ background.covariance @ pull
    d = len(fit.location)
    scale = 1.0
    if source == "batch":
        scale = max(float(np.median(distances[native])) / chi2.median(d), SMALLEST_SCALE)
    share = PRIOR_CONTAMINATION
    tilt = 1 / (2 * scale) - mean / variance
    if tilt <= 0:  # the population is no wider than the context: distance tells nothing
        return np.full(len(distances), share)
    shape = mean**2 / variance
    distances = np.maximum(distances, max((d / 2 - shape) / tilt, SMALLEST_SCALE))
    log_ratio = gamma.logpdf(distances, shape, scale=variance / mean) - gamma.logpdf(distances, d / 2, scale=2 * scale)
    if source == "batch":
        for _ in range(SHARE_ITERATIONS):
            found = expit(log_ratio[native] + np.log(share / (1 - share))).sum()
            share = (found + PRIOR_WEIGHT * PRIOR_CONTAMINATION) / (native.sum() + PRIOR_WEIGHT)
    posterior: Float64Array = expit(log_ratio + np.log(share / (1 - share)))
    return posterior


def normal_fit(context: Context, units: PopulationUnits) -> Fit:
    return Fit(*units.in_units(context))


def background_fit(context: Context, units: PopulationUnits) -> Fit:
    """The population, with the noise floor that the context has."""
    floor = noise_floor(context.posterior_variance, units)
    return Fit(np.zeros_like(units.unit), units.correlation() + np.diag(floor))


def noise_floor(posterior_variance: Float64Array, units: PopulationUnits) -> Float64Array:
    """(d,) the encoder's noise in population units, of posterior variances (L,)."""
    floor: Float64Array = FLOOR_SHARE * posterior_variance[units.live] / units.unit**2
    return floor
