"""The estimator `robust`: a deterministic minimum covariance determinant (MCD)."""

from __future__ import annotations

import numpy as np

from service.core.detect.gaussian import Fit, mahalanobis_squared, shrink_correlations
from service.core.detect.moments import Moments
from service.core.distributions import chi2_cdf, chi2_ppf, ranks
from service.core.types import Float64Array

ROBUST_SHARE = 0.75  # of the points, which the moments are taken over
MAX_ITERATIONS = 100


def robust(points: Float64Array, floor: Float64Array) -> Fit:
    """Fit the deterministic MCD of Hubert, Rousseeuw & Verdonck (2012), with a floor and shrunk correlations.

    There are three robust initial estimates. Concentration steps from each take the nearest 75% of the points until
    these no longer change. The result with the smallest determinant wins. points (n, d), floor (d,).
    """
    n, d = points.shape
    count = max(int(np.ceil(ROBUST_SHARE * n)), 2)
    # The nearest 75% underestimate the spread: Croux & Haesbroeck's factor (1999) makes it consistent at the Gaussian.
    consistency = ROBUST_SHARE / chi2_cdf(chi2_ppf(ROBUST_SHARE, d), d + 2)
    median = np.median(points, axis=0)
    spread = 1.4826 * np.median(np.abs(points - median), axis=0)
    centred = points - median
    ranked = ranks(points)
    length = np.linalg.norm(centred / np.sqrt(spread**2 + floor), axis=1, keepdims=True)
    directions = centred / np.maximum(length, np.finfo(np.float64).tiny)
    best: Fit | None = None
    best_volume = np.inf
    for shape in (np.diag(spread**2), np.cov(ranked, rowvar=False), np.cov(directions, rowvar=False)):
        shape = np.atleast_2d(shape)
        scale = np.sqrt((spread**2 + floor) / np.maximum(np.diag(shape), np.finfo(np.float64).eps))
        fit = Fit(median, shape * np.outer(scale, scale) + np.diag(floor))
        nearest = np.zeros(0, dtype=np.intp)
        for _ in range(MAX_ITERATIONS):
            distances = mahalanobis_squared(points, fit.location, fit.covariance)
            selected = np.sort(np.argsort(distances, kind="stable")[:count])
            if np.array_equal(selected, nearest):
                break
            nearest = selected
            moments = Moments.of(points[nearest])
            covariance = consistency * shrink_correlations(moments.scatter / (count - 1), count)
            fit = Fit(moments.mean, covariance + np.diag(floor))
        volume = float(np.linalg.slogdet(fit.covariance)[1])
        if volume < best_volume:
            best, best_volume = fit, volume
    assert best is not None
    return best
