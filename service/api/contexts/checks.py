"""Checks of the numbers in a context that a client sent: what no fitted context has is refused.

Within these limits nothing overflows, since all that scoring computes is at most of the fourth degree in the numbers.
"""

from __future__ import annotations

import numpy as np

from service.core.detect.context import Context
from service.core.detect.moments import Moments
from service.core.population import DEAD_VARIANCE, Population
from service.core.types import Float64Array
from service.errors import InvalidInput

FIT_AGAIN = "Send what `context` was in the answer of POST /fit, unchanged."
# Covariances that came through JSON are as symmetric as they went; more than rounding, as correlations, is an edit.
ROUNDING = 1e-6
# Where a fitted context can be, with room to spare. Estimators see latents clipped to 1e3 standard deviations of the
# population, but the moments keep them as they are: encoders reach a few dozen.
FURTHEST = 1e6
# `fitting.fit` cuts logvar at -50 and 50.
POSTERIOR_VARIANCES = 1e-22, 1e22
# In the population's variances. A fit adds a quarter of the posterior variance, and the population's is 0.01 or more.
SMALLEST_VARIANCE, LARGEST_VARIANCE = 1e-26, 1e24
# No sum of squares is larger, in the latents' own units: its square is finite as well.
LARGEST_SUM = 1e100
# Of the covariance, as correlations: with less, rounding decides whether it has a Cholesky factor.
LEAST_EIGENVALUE = 1e-12
# In standard deviations of the population: `service.core.detect.density_ratio` tries 1 to 16 of the encoder's
# posterior.
SMALLEST_BANDWIDTH, LARGEST_BANDWIDTH = 1e-14, 1e14
# No score and no evidence of a fit is larger.
LARGEST_SCORE, LARGEST_EVIDENCE, SMALLEST_SHARE = 1e45, 1e4, 1e-9
LOCATION_UNITS = "in standard deviations of the population from its mean"
VARIANCE_UNITS = "in the population's variances"


def check_fit(context: Context, population: Population, whose: str) -> None:
    """Raise InvalidInput unless location, covariance and noise are in range and the covariance is positive definite."""
    unit = _units(population)
    live = population.live_dims
    variance = np.diag(context.covariance) / unit**2
    deviation = _deviations(context.location, population)
    check_range(deviation, -FURTHEST, FURTHEST, f"{whose} location", LOCATION_UNITS)
    check_range(context.posterior_variance, *POSTERIOR_VARIANCES, f"{whose} posterior_variance", "")
    # A dead latent has the population's variance, however small.
    least = np.full(len(variance), np.finfo(np.float64).smallest_subnormal)
    least[live] = SMALLEST_VARIANCE
    on_diagonal = f"on the diagonal, {VARIANCE_UNITS}"
    check_range(variance, least, LARGEST_VARIANCE, f"{whose} covariance", on_diagonal)
    # Over what the model uses, in units that make every variance 1, so that a small scale is no singularity.
    check_definite(context.covariance[np.ix_(live, live)], f"{whose} covariance")


def check_definite(covariance: Float64Array, name: str) -> None:
    """Raise InvalidInput unless a covariance (d, d) has a Cholesky factor, whatever the rounding."""
    smallest = _smallest_eigenvalue(covariance)
    if smallest <= LEAST_EIGENVALUE:
        raise InvalidInput(
            f"{name} is not positive definite: as correlations its smallest eigenvalue is {smallest:.3g}, expected "
            f"more than {LEAST_EIGENVALUE:g}.",
            FIT_AGAIN,
        )


def check_moments(moments: Moments, population: Population) -> None:
    """Raise InvalidInput unless images can have such moments."""
    unit = _units(population)
    variance = np.diag(moments.scatter) / moments.size / unit**2
    deviation = _deviations(moments.mean, population)
    check_range(deviation, -FURTHEST, FURTHEST, "The context's moments.mean", LOCATION_UNITS)
    # No image lies further than twice FURTHEST from the mean of the others.
    of_each = f"for each image, on the diagonal, {VARIANCE_UNITS}"
    check_range(variance, 0, 4 * FURTHEST**2, "The context's moments.scatter", of_each)
    smallest = _smallest_eigenvalue(moments.scatter)
    if smallest < -ROUNDING:
        raise InvalidInput(
            "The context's moments.scatter is no sum of outer products: as correlations its smallest eigenvalue is "
            f"{smallest:.3g}, expected 0 or more.",
            FIT_AGAIN,
        )


def _units(population: Population) -> Float64Array:
    """Return the population's standard deviations (L,). A dead latent counts with the one at which latents come
    alive."""
    return np.sqrt(np.maximum(np.diag(population.covariance), DEAD_VARIANCE))


def _deviations(latents: Float64Array, population: Population) -> Float64Array:
    """Return latents (L,) as distances from the population's mean in its standard deviations, infinite on overflow."""
    with np.errstate(over="ignore"):
        return np.asarray((latents - population.location) / _units(population))


def _smallest_eigenvalue(matrix: Float64Array) -> float:
    """Return a lower bound of the smallest eigenvalue of a matrix (d, d) scaled to a diagonal of 1; 1 where d is 0.

    Rounding can make the matrix unsymmetric, and a computation may read either triangle: that difference is taken off.
    """
    spread = np.sqrt(np.diag(matrix))
    # An axis without any spread stays as it is: it has nothing beside its diagonal either.
    scale = np.where(spread > 0, spread, 1)
    scaled = matrix / scale[:, None] / scale
    return float(np.linalg.eigvalsh(scaled).min(initial=1) - np.linalg.norm(scaled - scaled.T))


def check_range(values: Float64Array, low: float | Float64Array, high: float, name: str, units: str) -> None:
    """Raise InvalidInput that names the first of the values (n,) that is outside its range, or not a number."""
    outside = np.flatnonzero(~((values >= low) & (values <= high)))
    if outside.size:
        index = outside[0]
        expected = f"{np.broadcast_to(low, values.shape)[index]:.3g} to {high:.3g}{units and ', '}{units}"
        raise InvalidInput(f"{name}[{index}] is {values[index]:.3g}, expected {expected}.", FIT_AGAIN)


def read_matrix(values: list[list[float]], latent_dim: int, name: str) -> Float64Array:
    """Return the values as a matrix (L, L), which must be symmetric, with no entry larger than a covariance's can
    be."""
    matrix = read_array(values, (latent_dim, latent_dim), name)
    variance = np.diag(matrix)
    check_range(variance, 0.0, LARGEST_SUM, f"The context's {name}", "on the diagonal")
    # Relative to both latents' deviations (Cauchy-Schwarz), so that one of a large scale excuses no other.
    largest = np.outer(np.sqrt(variance), np.sqrt(variance))
    if (np.abs(matrix) > largest * (1 + ROUNDING)).any():
        raise InvalidInput(
            f"The context's {name} is not positive definite: a covariance exceeds what its variances allow.", FIT_AGAIN
        )
    if (np.abs(matrix - matrix.T) > largest * ROUNDING).any():
        raise InvalidInput(f"The context's {name} is not symmetric.", FIT_AGAIN)
    return matrix


def read_array(values: list[float] | list[list[float]], shape: tuple[int, ...], name: str) -> Float64Array:
    try:
        array = np.array(values, dtype=np.float64)
    except ValueError:  # rows of unequal length
        array = np.zeros(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise InvalidInput(
            f"The context's {name} has shape {array.shape}, or values that are not finite; this bundle calls "
            f"for finite values of shape {shape}.",
            FIT_AGAIN,
        )
    return array
