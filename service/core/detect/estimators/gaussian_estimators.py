"""Estimators by one Gaussian: moments of the normal images, squared distances and log odds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.core.detect.context import Context
from service.core.detect.estimators.classical import is_degenerate, leave_one_out_distances
from service.core.detect.estimators.mixture import fit_mixture
from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.detect.gaussian_odds import background_fit, noise_floor, normal_fit, outlier_log_odds
from service.core.detect.standardize import PopulationUnits, canonical_order
from service.core.explain import shapley_gaussian
from service.core.types import BoolArray, Float64Array

# A function from points (n, d) and the noise floor (d,) to the moments of the normal ones.
MomentsFit = Callable[[Float64Array, Float64Array], Fit]

# The spread of squared distances that the encoder's noise may cause: that of one latent.
NOISE_DISTANCE = 1.5


@dataclass(frozen=True)
class GaussianEstimator:
    """Moments by some function of points and floor. Distances and odds follow from two Gaussians."""

    moments_fit: MomentsFit
    ranks_by_odds: bool = False
    compares_images: bool = False
    smallest_scale: float = NOISE_DISTANCE
    saturates: bool = False

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        return self.moments_fit(points, floor)

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        return context

    def distances(
        self, points: Float64Array, context: Context, units: PopulationUnits, members: BoolArray
    ) -> Float64Array:
        return mahalanobis_squared(points, *units.in_units(context))

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        return outlier_log_odds(points, normal_fit(context, units), background_fit(context, units))

    def shapley_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        return shapley_gaussian.shapley_odds(points, normal_fit(context, units), background_fit(context, units))


class LeaveOneOut(GaussianEstimator):
    """Each image of a batch is compared with the moments of the others."""

    def distances(
        self, points: Float64Array, context: Context, units: PopulationUnits, members: BoolArray
    ) -> Float64Array:
        distances = super().distances(points, context, units, members)
        if context.source == "batch" and context.size > 2 and members.any():
            # A canonical order, so that sums round alike however the images are permuted.
            order = np.flatnonzero(members)[canonical_order(points[members])]
            own, floor = points[order], noise_floor(context.posterior_variance, units)
            # The published formula has no floor: it is exact wherever the others' covariance can be inverted. Among
            # copies of one image, with the encoder's noise, it would tell the noise.
            are_copies = bool((own.var(axis=0, ddof=1) <= floor).all())
            needed = floor if are_copies or is_degenerate(own) else np.zeros_like(floor)
            distances[order] = leave_one_out_distances(own, needed)
        return distances


class Mixture(GaussianEstimator):
    """Context against population, by expectation maximisation."""

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        return fit_mixture(points, floor, background)
