"""The estimator `robust`: a deterministic minimum covariance determinant (MCD)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from service.core.detect.gaussian import Fit, shrink_correlations
from service.core.detect.moments import Moments
from service.core.distributions import chi2_cdf, chi2_ppf, median, ranks
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
    consistency = _consistency(d)
    location = median(points)
    centred = points - location
    variance = np.square(1.4826 * median(np.abs(centred)))
    noise = np.diag(floor)
    length = np.sqrt(np.square(centred / np.sqrt(variance + floor)).sum(axis=1, keepdims=True))
    directions = centred / np.maximum(length, np.finfo(np.float64).tiny)
    fits = []
    for shape in (np.diag(variance), _covariance(ranks(points)), _covariance(directions)):
        scale = np.sqrt((variance + floor) / np.maximum(shape.diagonal(), np.finfo(np.float64).eps))
        fit = Fit(location, shape * (scale[:, None] * scale) + noise)
        nearest = np.zeros(count, dtype=np.intp)
        for _ in range(MAX_ITERATIONS):
            selected = np.sort(fit.distances(points).argsort(kind="stable")[:count])
            if (selected == nearest).all():
                break
            nearest = selected
            moments = Moments.of(points[nearest])
            covariance = consistency * shrink_correlations(moments.scatter / (count - 1), count)
            fit = Fit(moments.mean, covariance + noise)
        fits.append(fit)
    # Rounded: of equal ones the first, whatever their last digits are.
    return min(fits, key=lambda fit: round(fit.volume, 9))


@lru_cache(maxsize=64)
def _consistency(d: int) -> float:
    """Return by how much the nearest 75% underestimate the covariance of a Gaussian (Croux & Haesbroeck 1999)."""
    return float(ROBUST_SHARE / chi2_cdf(chi2_ppf(ROBUST_SHARE, d), d + 2))


def _covariance(values: Float64Array) -> Float64Array:
    """Return the sample covariance (d, d) of values (n, d), n >= 2."""
    return Moments.of(values).scatter / (len(values) - 1)
