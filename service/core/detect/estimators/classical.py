"""The classical estimators of a context's normal moments. Each is a function of points (n, d) and floor (d,) to a Fit.

Points are live latents in population units, float64. `floor`, the encoder's noise, is added to the diagonal: a factor
that is constant in the context stays informative and finite. No estimator depends on the order of the points.

scikit-learn is imported where it is needed, by three estimators that are no default: it takes 100 MiB, and half a
second of every start.
"""

from __future__ import annotations

import warnings

import numpy as np

from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.detect.moments import Moments
from service.core.types import Float64Array


def classical(points: Float64Array, floor: Float64Array) -> Fit:
    """Fit the mean and the sample covariance (ddof 1)."""
    moments = Moments.of(points)
    return Fit(moments.mean, moments.scatter / (moments.size - 1) + np.diag(floor))


def leave_one_out_distances(points: Float64Array, floor: Float64Array) -> Float64Array:
    """Return the squared distance (n,) of every point to the moments (ddof 1) of the n - 1 others, n >= 3.

    Leaving x_i out moves the mean by delta_i / (n-1) and takes n/(n-1) delta_i delta_i' from the scatter M. With
    A = M + (n-2) floor and q_i = delta_i' A^-1 delta_i the Sherman-Morrison formula gives
        D2_i = (n/(n-1))^2 (n-2) q_i / (1 - n/(n-1) q_i).
    Without a floor that is the expression of scoring-method.md in D2 = (n-1) q_i.
    """
    moments = Moments.of(points)
    n = len(points)
    ratio = n / (n - 1)
    q = mahalanobis_squared(points, moments.mean, moments.scatter + (n - 2) * np.diag(floor))
    return ratio**2 * (n - 2) * q / np.maximum(1 - ratio * q, np.finfo(np.float64).eps)


def is_degenerate(points: Float64Array) -> bool:
    """Return whether the covariance of n - 1 of the points (n, d) may be singular, to working precision."""
    n, d = points.shape
    if d == 0 or n < d + 2:
        return True
    spread = np.linalg.eigvalsh(np.atleast_2d(np.cov(points, rowvar=False)))
    return bool(spread[0] <= n * np.finfo(np.float64).eps ** 0.5 * spread[-1])


def shrunk_ledoit_wolf(points: Float64Array, floor: Float64Array) -> Fit:
    """Fit the covariance of Ledoit & Wolf (2004), shrunk towards a scaled identity."""
    from sklearn.covariance import ledoit_wolf

    return Fit(points.mean(axis=0), ledoit_wolf(points)[0] + np.diag(floor))


def shrunk_oas(points: Float64Array, floor: Float64Array) -> Fit:
    """Fit the oracle approximating shrinkage of Chen et al. (2010), towards a scaled identity."""
    from sklearn.covariance import oas

    return Fit(points.mean(axis=0), oas(points)[0] + np.diag(floor))


def minimum_covariance_determinant(points: Float64Array, floor: Float64Array) -> Fit:
    """Fit the reweighted FAST-MCD of Rousseeuw & Van Driessen (1999). Degenerate points get the plain moments."""
    from sklearn.covariance import MinCovDet

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = MinCovDet(random_state=0).fit(points)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, Warning):
            plain = classical(points, floor)
            warning = "mcd needs more images, or images that vary in every live latent: used the plain moments."
            return Fit(plain.location, plain.covariance, warnings=(warning,))
    return Fit(fit.location_, fit.covariance_ + np.diag(floor))
