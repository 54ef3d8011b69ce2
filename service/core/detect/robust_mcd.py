"""The robust estimator: a deterministic minimum covariance determinant."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2, rankdata

from service.core.detect.gaussian import Fit, mahalanobis_squared, shrink_correlations
from service.core.detect.moments import Moments
from service.core.types import Float64Array

ROBUST_SHARE = 0.75

MAX_ITERATIONS = 100


def robust(points: Float64Array, floor: Float64Array) -> Fit:
    """Deterministic MCD, after Hubert, Rousseeuw & Verdonck (2012), with a floor and shrunk correlations.

    Three robust first guesses; from each, concentration steps keep the 75% nearest points until they stay
    the same; the guess with the smallest determinant wins.
    """
    n, d = points.shape
    kept = max(int(np.ceil(ROBUST_SHARE * n)), 2)
    # Consistency at the Gaussian, Croux & Haesbroeck (1999): the nearest 75% underestimate the spread.
    consistency = ROBUST_SHARE / chi2.cdf(chi2.ppf(ROBUST_SHARE, d), d + 2)
    median = np.median(points, axis=0)
    spread = 1.4826 * np.median(np.abs(points - median), axis=0)
    centred = points - median
    ranks = rankdata(points, axis=0)
    length = np.linalg.norm(centred / np.sqrt(spread**2 + floor), axis=1, keepdims=True)
    directions = centred / np.maximum(length, np.finfo(np.float64).tiny)
    best: Fit | None = None
    best_volume = np.inf
    for shape in (np.diag(spread**2), np.cov(ranks, rowvar=False), np.cov(directions, rowvar=False)):
        shape = np.atleast_2d(shape)
        scale = np.sqrt((spread**2 + floor) / np.maximum(np.diag(shape), np.finfo(np.float64).eps))
        fit = Fit(median, shape * np.outer(scale, scale) + np.diag(floor))
        nearest = np.zeros(0, dtype=np.intp)
        for _ in range(MAX_ITERATIONS):
            distances = mahalanobis_squared(points, fit.location, fit.covariance)
            chosen = np.sort(np.argsort(distances, kind="stable")[:kept])
            if np.array_equal(chosen, nearest):
                break
            nearest = chosen
            moments = Moments.of(points[nearest])
            covariance = consistency * shrink_correlations(moments.scatter / (kept - 1), kept)
            fit = Fit(moments.mean, covariance + np.diag(floor))
        volume = float(np.linalg.slogdet(fit.covariance)[1])
        if volume < best_volume:
            best, best_volume = fit, volume
    assert best is not None
    return best
