"""The standing of an image in a context: its distance, its log odds of being an outlier, whether it is inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2, gamma

from service.core.detect.context import Context
from service.core.detect.estimators import estimator_of
from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import Float64Array, Source

# The share of outliers before anything is seen, and how many images that guess is worth.
PRIOR_CONTAMINATION, PRIOR_WEIGHT = 0.05, 5.0
SHARE_ITERATIONS = 50
SMALLEST_SCALE = 1e-6


def mahalanobis(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Return squared distances (n,) of latents (n, 2, L), or of means (n, L), to `context`, over the live latents."""
    units = PopulationUnits.of(population)
    return mahalanobis_squared(units.points(latents), *units.in_units(context))


def log_odds(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Return the log posterior odds (n,) of outlier against inlier of latents (n, 2, L), or of means (n, L)."""
    units = PopulationUnits.of(population)
    known = context.contamination if context.source == "batch" else None
    share = PRIOR_CONTAMINATION if known is None else known
    return estimator_of(context).log_odds(units.points(latents), context, units, share)


def inside(latents: NDArray[np.floating], context: Context, population: Population) -> NDArray[np.bool_]:
    """Return which latents (n, 2, L), or means (n, L), lie among the normal images: within the radius, with odds at
    most 1.
    """
    near = mahalanobis(latents, context, population) <= context.radius_squared
    return near & (log_odds(latents, context, population) <= 0)


def two_group_posterior(
    distances: Float64Array, native: NDArray[np.bool_], fit: Fit, background: Fit, source: Source
) -> Float64Array:
    """Return the posterior probability (n,) that each squared distance is an outlier's (two groups, Efron 2008).

    Inliers: chi-square with d degrees of freedom. In a batch it is scaled to the median distance, since outliers
    inflate
    moments that are not robust. Outliers: a gamma with the mean and variance of a population draw's distance. The
    share of
    outliers is fitted by EM in a batch, over the images that are `native` (n,), that is in distribution; against a
    reference
    it is fixed. Where the two densities' ratio would fall again at short distances, its least value counts: the
    posterior never falls as the distance grows.
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
