"""Estimators of a context's normal moments, each a function of points (n, d) -> Fit.

All work on the live latents in population units (the population's mean is 0 and its standard deviation 1 on
every axis), in float64, with `floor` (d,), the encoder's noise, on the diagonal: it keeps a factor that is
constant in the context informative and finite. None depends on the order of the points.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.stats import chi2, rankdata
from sklearn.covariance import MinCovDet, ledoit_wolf, oas

from service.core.detect.context import Float64Array, Moments

ROBUST_SHARE = 0.75
MAX_ITERATIONS = 100


@dataclass(frozen=True)
class Fit:
    """Moments of the normal images; the floor is part of the covariance."""

    location: Float64Array
    covariance: Float64Array
    contamination: float | None = None
    warnings: tuple[str, ...] = ()


def marginal_distances(points: Float64Array, fit: Fit, axes: NDArray[np.bool_]) -> tuple[Float64Array, Float64Array]:
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


def classical(points: Float64Array, floor: Float64Array) -> Fit:
    """Mean and sample covariance (ddof 1)."""
    moments = Moments.of(points)
    return Fit(moments.mean, moments.scatter / (moments.size - 1) + np.diag(floor))


def leave_one_out_distances(points: Float64Array, floor: Float64Array) -> Float64Array:
    """Squared distance (n,) of every point to the moments (ddof 1) of the n - 1 others, n >= 3.

    Leaving x_i out moves the mean by delta_i / (n-1) and takes n/(n-1) delta_i delta_i' from the scatter M,
    so with A = M + (n-2) floor and q_i = delta_i' A^-1 delta_i the Sherman-Morrison formula gives
        D2_i = (n/(n-1))^2 (n-2) q_i / (1 - n/(n-1) q_i),
    which without a floor is scoring.md's expression in D2 = (n-1) q_i.
    """
    moments = Moments.of(points)
    n = len(points)
    ratio = n / (n - 1)
    q = mahalanobis_squared(points, moments.mean, moments.scatter + (n - 2) * np.diag(floor))
    return ratio**2 * (n - 2) * q / np.maximum(1 - ratio * q, np.finfo(np.float64).eps)


def is_degenerate(points: Float64Array) -> bool:
    """Whether the covariance of n - 1 of the points (n, d) may be singular, to working precision."""
    n, d = points.shape
    if d == 0 or n < d + 2:
        return True
    spread = np.linalg.eigvalsh(np.atleast_2d(np.cov(points, rowvar=False)))
    return bool(spread[0] <= n * np.finfo(np.float64).eps ** 0.5 * spread[-1])


def shrunk_ledoit_wolf(points: Float64Array, floor: Float64Array) -> Fit:
    """Ledoit & Wolf (2004): towards a scaled identity."""
    return Fit(points.mean(axis=0), ledoit_wolf(points)[0] + np.diag(floor))


def shrunk_oas(points: Float64Array, floor: Float64Array) -> Fit:
    """Oracle approximating shrinkage, Chen et al. (2010): towards a scaled identity."""
    return Fit(points.mean(axis=0), oas(points)[0] + np.diag(floor))


def minimum_covariance_determinant(points: Float64Array, floor: Float64Array) -> Fit:
    """FAST-MCD, Rousseeuw & Van Driessen (1999), reweighted; on degenerate points the plain moments."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = MinCovDet(random_state=0).fit(points)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, Warning):
            plain = classical(points, floor)
            note = "mcd needs more images, or images that vary in every live latent: used the plain moments."
            return Fit(plain.location, plain.covariance, warnings=(note,))
    return Fit(fit.location_, fit.covariance_ + np.diag(floor))


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


def shrink_correlations(covariance: Float64Array, size: float) -> Float64Array:
    """Off-diagonal entries times n/(n+d): with few points their sampling error outweighs what they tell."""
    d = len(covariance)
    kept = size / (size + d)
    return kept * covariance + (1 - kept) * np.diag(np.diag(covariance))


FITS: dict[str, Callable[[Float64Array, Float64Array], Fit]] = {
    "leave_one_out": classical,
    "ledoit_wolf": shrunk_ledoit_wolf,
    "oas": shrunk_oas,
    "mcd": minimum_covariance_determinant,
    "robust": robust,
}
