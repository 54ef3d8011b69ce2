"""Gaussian log odds of an image: the population, with a far tail, against the context's moments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.detect.context import Context
from service.core.detect.gaussian import Fit, marginal_distances, solve_lower
from service.core.detect.standardize import PopulationUnits
from service.core.types import Float64Array

# The noise floor, in units of the encoder's mean posterior variance.
FLOOR_SHARE = 0.25
# Outliers follow the population, but this share of them lies anywhere within this many times its spread.
FAR_SHARE, FAR = 1e-3, 5.0


# In nats for each latent: where a context tells less than this apart from the population, the population fades out of
# its odds.
FADE = 0.1


def outlier_log_odds(points: Float64Array, fit: Fit, background: Fit) -> Float64Array:
    """Return log odds (n,) of outlier against inlier, where both are equally likely.

    Outliers follow the population's Gaussian, with a far tail.
    """
    return odds_of_distances(background.distances(points), fit.distances(points), fit, background)


def odds_of_distances(outlying: Float64Array, inlying: Float64Array, fit: Fit, background: Fit) -> Float64Array:
    """Return `outlier_log_odds` (n,) by squared distances (n,) to the population and to the fit."""
    outlier = -0.5 * outlying - background.volume + far_tail(outlying, len(background.location))
    return np.asarray(outlier + 0.5 * inlying + fit.volume)


def population_power(fit: Fit, background: Fit) -> float:
    """Return 1 - exp(-KL(fit || background) / (d * FADE)), from 0 to 1."""
    d = len(fit.location)
    # The trace of the covariances' ratio and the squared distance of the locations, in one sum of squares.
    whitened = solve_lower(background.factor, np.column_stack([fit.factor, fit.location - background.location]))
    divergence = 0.5 * (np.square(whitened).sum() - d) + background.volume - fit.volume
    return float(-np.expm1(-max(divergence, 0.0) / (d * FADE)))


def marginal_log_ratios(points: Float64Array, fit: Fit, background: Fit, axes: NDArray[np.bool_]) -> Float64Array:
    """Return log ratios (s, n) of `fit` to the population at points (n, d), by their marginals on sets of axes (s, d).

    On all axes this is the negative of `outlier_log_odds`.
    """
    inlier, inlier_volume = marginal_distances(points, fit, axes)
    outlier, outlier_volume = marginal_distances(points, background, axes)
    tail = far_tail(outlier, axes.sum(axis=1)[:, None])
    return 0.5 * (outlier - inlier) + (outlier_volume - inlier_volume)[:, None] - tail


def far_tail(distance: Float64Array, d: int | NDArray[np.int64]) -> Float64Array:
    """Return what the far tail adds to the log density of outliers, at squared distances to the population over d axes.

    A few outliers lie far outside the population. There both Gaussians vanish and their ratio means nothing: the tail
    takes over. Within the population it adds nothing.
    """
    far = np.log(FAR_SHARE) - d * np.log(FAR) + 0.5 * distance * (1 - FAR**-2)
    return np.asarray(np.logaddexp(0, far))


def normal_fit(context: Context, units: PopulationUnits) -> Fit:
    return Fit(*units.in_units(context))


def background_fit(context: Context, units: PopulationUnits) -> Fit:
    """Return the population's moments, with the noise floor of the context."""
    floor = noise_floor(context.posterior_variance, units)
    return Fit(np.zeros_like(units.unit), units.correlation + np.diag(floor))


def noise_floor(posterior_variance: Float64Array, units: PopulationUnits) -> Float64Array:
    """Return the encoder's noise (d,) in population units, from posterior variances (L,)."""
    floor: Float64Array = FLOOR_SHARE * posterior_variance[units.live] / units.unit**2
    return floor
