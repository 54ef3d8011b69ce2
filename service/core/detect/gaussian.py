"""A Gaussian fit of the normal images: squared Mahalanobis distances, log densities and marginals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtrs

from service.core.types import BoolArray, Float64Array


@dataclass(frozen=True)
class Fit:
    """A Gaussian fitted to the normal images.

    location    (d,)
    covariance  (d, d)  the noise floor included
    warnings    what the user should know, as sentences
    """

    location: Float64Array
    covariance: Float64Array
    warnings: tuple[str, ...] = ()

    @cached_property
    def factor(self) -> Float64Array:
        """Return the Cholesky factor (d, d) of the covariance."""
        return factorise(self.covariance)

    @cached_property
    def volume(self) -> float:
        """Return half the log determinant of the covariance."""
        return float(np.log(self.factor.diagonal()).sum())

    def distances(self, points: Float64Array) -> Float64Array:
        """Return squared Mahalanobis distances (n,) of points (n, d): the squared norm of L^-1 (x - location)."""
        whitened = solve_lower(self.factor, (points - self.location).T)
        return np.asarray(np.square(whitened, out=whitened).sum(axis=0))

    def log_density(self, points: Float64Array) -> Float64Array:
        """Return log densities (n,), without the constant d/2 log(2 pi), which every ratio cancels."""
        return np.asarray(-0.5 * self.distances(points) - self.volume)


def factorise(covariance: Float64Array) -> Float64Array:
    """Return the Cholesky factor L (d, d), covariance = LL': LAPACK without what numpy.linalg checks.

    Raises LinAlgError where the covariance is not positive definite.
    """
    if not covariance.size:
        return covariance
    factor, failed = dpotrf(covariance, lower=1)
    if failed:
        raise np.linalg.LinAlgError("The covariance is not positive definite.")
    return np.asarray(factor)


def solve_lower(factor: NDArray[np.floating], right: Float64Array) -> Float64Array:
    """Return L^-1 B (d, n) of a Cholesky factor L (d, d) and B (d, n): LAPACK without what scipy.linalg checks."""
    if not right.size:
        return np.empty(right.shape)
    solution, singular = dtrtrs(factor.T, right, lower=0, trans=1)
    if singular:
        raise np.linalg.LinAlgError("The factor is singular.")
    return np.asarray(solution)


def mahalanobis_squared(points: Float64Array, location: Float64Array, covariance: Float64Array) -> Float64Array:
    """Return squared distances (n,) of points (n, d) to a Gaussian: see `Fit.distances`."""
    return Fit(location, covariance).distances(points)


def log_density(points: Float64Array, location: Float64Array, covariance: Float64Array) -> Float64Array:
    """Return Gaussian log densities (n,): see `Fit.log_density`."""
    return Fit(location, covariance).log_density(points)


def marginal_distances(points: Float64Array, fit: Fit, axes: BoolArray) -> tuple[Float64Array, Float64Array]:
    """Return squared distances (s, n) of points (n, d) by the marginals of `fit` on each set of `axes` (s, d).

    Also return half the log determinant (s,) of each marginal's covariance.
    """
    # All systems have one size: an axis outside a set has variance 1 and no deviation.
    both = axes[:, :, None] & axes[:, None, :]
    factors = np.linalg.cholesky(np.where(both, fit.covariance, np.eye(axes.shape[1])))
    delta = np.where(axes[:, None], points - fit.location, 0)  # (s, n, d)
    whitened = delta @ np.linalg.inv(factors).transpose(0, 2, 1)
    return np.square(whitened).sum(axis=2), np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)


def shrink_correlations(covariance: Float64Array, size: float) -> Float64Array:
    """Return a covariance (d, d) with its off-diagonal entries times n / (n + d), n = `size`.

    With few points the sampling error of correlations outweighs what they tell.
    """
    shrunk = size / (size + len(covariance)) * covariance
    np.fill_diagonal(shrunk, covariance.diagonal())
    return shrunk
