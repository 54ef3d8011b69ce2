"""The default estimator: the density ratio, the mixture and the robust moments together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from service.core.detect.context import Context
from service.core.detect.divergence import Divergence, left_out_distances
from service.core.detect.estimators.density_ratio_estimator import DensityRatio
from service.core.detect.estimators.robust_mcd import robust
from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import background_fit, noise_floor, normal_fit, odds_of_distances
from service.core.detect.standardize import PopulationUnits, distinct_rows
from service.core.explain import shapley_gaussian
from service.core.types import Float64Array

# The weight of each of the two Gaussians in a narrow context, chosen on validation contexts. `density_ratio` has most
# of the weight, since its odds move over a few nats where the Gaussians' move over hundreds.
GAUSSIAN_WEIGHT = 0.2


@dataclass(frozen=True)
class _Gaussians:
    """How n points stand to two Gaussians: that of the context's normal images, and the population's.

    inlying, outlying  (n,)  squared distances to them
    """

    normal: Fit
    background: Fit
    inlying: Float64Array
    outlying: Float64Array

    @classmethod
    def of(cls, points: Float64Array, context: Context, units: PopulationUnits) -> Self:
        normal, background = normal_fit(context, units), background_fit(context, units)
        return cls(normal, background, normal.distances(points), background.distances(points))

    def log_ratios(self, inlying: Float64Array) -> Float64Array:
        """Return the log ratios (..., n) of context to population, if `inlying` (..., n) were the squared distances."""
        return -odds_of_distances(self.outlying, inlying, self.normal, self.background)


class Ensemble(DensityRatio):
    """A logarithmic opinion pool (Genest & Zidek 1986): the weighted mean of three estimators' log odds.

    Each is right where another fails: `robust` where misfits vouch for each other, `mixture` where the normal images
    are a narrow part of a batch, `density_ratio` where they form several clumps or are a large part of the population.
    Where the context is as wide as the population, the population says nothing about outliers: the odds then fade into
    the distance. How wide the context is, its divergence from the population tells.

    Copies of an image count once, so that they do not vouch for each other, unless they are most of the batch.
    """

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        return super().fit(points[distinct_rows(points)], floor, background)

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        """Also measure the divergence, and score the images and the population with what that takes."""
        distinct = distinct_rows(points)
        context = super().with_images(context, points[distinct], units)
        if len(distinct) <= 2 or not units.live.size:
            return context
        n, everything = len(points), np.concatenate([points, units.draws])
        gaussians = _Gaussians.of(everything, context, units)
        distances = np.stack([gaussians.inlying, left_out_distances(gaussians.inlying, len(distinct))])
        # The neighbours of an image are without itself.
        ratios = self._log_ratios(everything, context, units, gaussians.log_ratios(distances))
        context = replace(
            context,
            robust=robust(points[distinct], noise_floor(context.posterior_variance, units)),
            divergence=Divergence.of(ratios[0, distinct], ratios[1, distinct], ratios[0, n:]),
        )
        odds = self._pooled_odds(everything, ratios[0], gaussians, context, units)
        return replace(context, scores=odds[:n], population_scores=odds[n:])

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        gaussians = _Gaussians.of(points, context, units)
        ratios = self._log_ratios(points, context, units, gaussians.log_ratios(gaussians.inlying))
        return self._pooled_odds(points, ratios, gaussians, context, units)

    def _pooled_odds(
        self,
        points: Float64Array,
        ratios: Float64Array,
        gaussians: _Gaussians,
        context: Context,
        units: PopulationUnits,
    ) -> Float64Array:
        """Return the log odds (n,) of points (n, d) with log ratios (n,) by `_log_ratios`."""
        ratio = self._odds(points, ratios, context, units)
        if context.robust is None:
            return ratio
        outlier = -0.5 * gaussians.outlying - gaussians.background.volume
        inlying, nearby = 0.5 * gaussians.inlying, 0.5 * context.robust.distances(points)
        mixture, nearest = outlier + inlying + gaussians.normal.volume, outlier + nearby + context.robust.volume
        return _pool(context, ratio, mixture, nearest, (inlying + nearby) / 2)

    def shapley_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        ratio = super().shapley_odds(points, context, units)
        if context.robust is None:
            return ratio
        background, normal = background_fit(context, units), normal_fit(context, units)
        mixture, nearest = (shapley_gaussian.shapley_odds(points, fit, background) for fit in (normal, context.robust))
        distances = [0.5 * shapley_gaussian.shapley(points, fit) for fit in (normal, context.robust)]
        return _pool(context, ratio, mixture, nearest, np.mean(distances, axis=0))


def _pool(
    context: Context, ratio: Float64Array, mixture: Float64Array, nearest: Float64Array, distance: Float64Array
) -> Float64Array:
    """Return the weighted mean of what the estimators and the distances to their Gaussians say of images.

    All are log odds (n,) or their Shapley values (n, d); `nearest` are those of `robust`, `distance` is half the mean
    of the two squared distances.
    """
    certainty, narrowness = 1.0, 1.0
    if context.divergence is not None and context.robust is not None:
        certainty = context.divergence.certainty
        narrowness = context.divergence.narrowness(len(context.robust.location))
    weight = GAUSSIAN_WEIGHT * narrowness
    pooled = (1 - 2 * weight) * ratio + weight * (mixture + nearest)
    return np.asarray(certainty * pooled + (1 - certainty) * distance)
