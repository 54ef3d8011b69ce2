"""A Gaussian fit: squared Mahalanobis distances, log densities and marginals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from service.core.types import BoolArray, Float64Array


@dataclass(frozen=True)
class Fit:
    """Moments of the normal images; the floor is part of the covariance."""

    location: Float64Array
    covariance: Float64Array
    contamination: float | None = None
    warnings: tuple[str, ...] = ()


def marginal_distances(points: Float64Array, fit: Fit, axes: BoolArray) -> tuple[Float64Array, Float64Array]:
    """For each of some sets of axes (s, d), by the marginals of `fit` on them: the squared distances (s, n) of points
    (n, d), and the log (s,) of the root of the covariance's determinant."""
    # Systems of one size: an axis that a set leaves out has variance 1 and no deviation.
    both = axes[:, :, None] & axes[:, None, :]
    factors = np.linalg.cholesky(np.where(both, fit.covariance, np.eye(axes.shape[1])))
    delta = np.where(axes[:, None], points - fit.location, 0)  # (s, n, d)
    whitened = delta @ np.linalg.inv(factors).transpose(0, 2, 1)
    return np.square(whitened).sum(axis=2), np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)


def mahalanobis_squared(points: Float64Array, location: Float64Array, covariance: Float64Array) -> Float64Array:
    """Squared distance (n,) of points (n, d): the squared norm of L^-1 (x - location), covariance = LL'."""
    factor = np.linalg.cholesky(covariance)
    whitened = solve_triangular(factor, (points - location).T, lower=True)
    distances: Float64Array = np.square(whitened).sum(axis=0)
    return distances


def log_density(points: Float64Array, location: Float64Array, covariance: Float64Array) -> Float64Array:
    """Gaussian log density (n,), without the constant d/2 log(2 pi), which every ratio cancels."""
    factor = np.linalg.cholesky(covariance)
    whitened = solve_triangular(factor, (points - location).T, lower=True)
    density: Float64Array = -0.5 * np.square(whitened).sum(axis=0) - np.log(np.diag(factor)).sum()
    return density


def shrink_correlations(covariance: Float64Array, size: float) -> Float64Array:
    """Off-diagonal entries times n/(n+d): with few points their sampling error outweighs what they tell."""
    d = len(covariance)
    kept = size / (size + d)
    return kept * covariance + (1 - kept) * np.diag(np.diag(covariance))
