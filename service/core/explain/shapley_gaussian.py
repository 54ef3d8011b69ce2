"""Shapley values of the squared Mahalanobis distance and of the Gaussian log odds, in closed form.

With delta = x - location, Omega = covariance^-1 and g = Omega delta the squared distance is D2 = delta' g.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from service.core.detect.gaussian import Fit
from service.core.types import Float64Array


def shapley(points: Float64Array, fit: Fit) -> Float64Array:
    """Return Shapley values (n, d) of D2: phi_k = delta_k g_k (Mayrhofer & Filzmoser 2022).

    A coalition's worth is the D2 of the image whose other coordinates are the location's.
    """
    delta, gradient, _ = departure(points, fit)
    return delta * gradient


def shapley_odds(points: Float64Array, fit: Fit, background: Fit, power: float = 1.0) -> Float64Array:
    """Return Shapley values (n, d) of the log odds of `background` against `fit`: half the difference of those of D2.

    power  the power of the background's density that the odds take, from 0 to 1

    The constants of the odds belong to no latent, and neither does their far tail, which vanishes within the
    population.
    """
    return 0.5 * (shapley(points, fit) - power * shapley(points, background))


def conditional_z(points: Float64Array, fit: Fit) -> Float64Array:
    """Return (x_k - E[x_k | the rest]) / sd[x_k | the rest] = g_k / sqrt(Omega_kk), (n, d)."""
    _, gradient, precision = departure(points, fit)
    return np.asarray(gradient / np.sqrt(np.diag(precision)))


def marginal_z(points: Float64Array, fit: Fit) -> Float64Array:
    """Return delta_k / sqrt(Sigma_kk), (n, d)."""
    return np.asarray((points - fit.location) / np.sqrt(np.diag(fit.covariance)))


def shapley_interactions(points: Float64Array, fit: Fit) -> Float64Array:
    """Return Shapley interaction indices (n, d, d) of D2 (Mayrhofer & Filzmoser 2022).

    Phi_jk = 2 delta_j Omega_jk delta_k, and Phi_kk = 2 delta_k^2 Omega_kk - phi_k: each row sums to phi_k.
    """
    return interactions_of_rows(departure(points, fit), slice(None))


def interactions_of_rows(departure: tuple[Float64Array, Float64Array, Float64Array], rows: slice) -> Float64Array:
    """Return the interactions of some rows, from what `departure` returns."""
    delta, gradient, precision = departure[0][rows], departure[1][rows], departure[2]
    result: Float64Array = 2 * delta[:, :, None] * precision * delta[:, None, :]
    axes = np.arange(len(precision))
    result[:, axes, axes] -= delta * gradient
    return result


def departure(points: Float64Array, fit: Fit) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return delta (n, d), g = Omega delta (n, d) and Omega (d, d), solved on axes of unit variance."""
    unit = np.sqrt(np.diag(fit.covariance))
    factor = np.linalg.cholesky(fit.covariance / np.outer(unit, unit))
    delta = points - fit.location
    white = solve_triangular(factor, (delta / unit).T, lower=True)
    gradient = solve_triangular(factor, white, lower=True, trans="T").T / unit
    half = solve_triangular(factor, np.diag(1 / unit), lower=True)
    return delta, gradient, half.T @ half
