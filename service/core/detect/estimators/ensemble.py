"""The default estimator: the density ratio, the mixture and the robust moments together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from service.core.detect import density_ratio
from service.core.detect.context import Context
from service.core.detect.divergence import Divergence, left_out_distances
from service.core.detect.estimators.density_ratio_estimator import DensityRatio
from service.core.detect.estimators.robust_mcd import robust
from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import background_fit, noise_floor, normal_fit, odds_of_distances
from service.core.detect.standardize import PopulationUnits, without_copies
from service.core.explain import shapley_gaussian
from service.core.types import Float64Array

# The weight of each of the two Gaussians in a narrow context, chosen on validation contexts. `density_ratio` has most
# of the weight, since its odds move over a few nats where the Gaussians' move over hundreds.
GAUSSIAN_WEIGHT = 0.2
# Images of the population that a context's are compared with.
DRAWS = 250


class Ensemble(DensityRatio):
    """A logarithmic opinion pool (Genest & Zidek 1986): the weighted mean of three estimators' log odds.

    Each is right where another fails: `robust` where misfits vouch for each other, `mixture` where the normal images
    are a narrow part of a batch, `density_ratio` where they form several clumps or are a large part of the population.
    Where the context is as wide as the population, the population says nothing about outliers: the odds then fade into
    the distance. How wide the context is, its divergence from the population tells.

    Copies of an image count once, so that they do not vouch for each other, unless they are most of the batch.
    """

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        return super().fit(without_copies(points), floor, background)

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        points = without_copies(points)
        context = super().with_images(context, points, units)
        if len(points) <= 2 or not units.live.size:
            return context
        moments = robust(points, noise_floor(context.posterior_variance, units))
        return replace(context, robust=moments, divergence=_measure_divergence(points, context, units))

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        ratio = super().log_odds(points, context, units)
        if context.robust is None:
            return ratio
        background, normal = background_fit(context, units), normal_fit(context, units)
        outlier = background.log_density(points)
        distances = [0.5 * fit.distances(points) for fit in (normal, context.robust)]
        mixture, nearest = (
            outlier + distance + fit.volume for distance, fit in zip(distances, (normal, context.robust), strict=True)
        )
        return _pool(context, ratio, mixture, nearest, np.mean(distances, axis=0))

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


def _measure_divergence(points: Float64Array, context: Context, units: PopulationUnits) -> Divergence:
    """Measure how far the points (n, d) that `context` was fitted to lie from the population."""
    background, normal = background_fit(context, units), normal_fit(context, units)
    everything = np.concatenate([points, units.draws(DRAWS)])
    distances = np.stack([normal.distances(everything)] * 2)
    distances[1, : len(points)] = left_out_distances(distances[0, : len(points)], len(points))
    ratios = -odds_of_distances(background.distances(everything), distances, normal, background)
    sample = units.sample
    if context.kernel is not None and sample is not None:  # which leaves out an image's own kernel
        ratios = density_ratio.log_ratios(everything, context.kernel, sample, ratios)
    (fitted, population), (left_out, _) = (np.split(each, [len(points)]) for each in ratios)
    return Divergence.of(fitted, left_out, population)
