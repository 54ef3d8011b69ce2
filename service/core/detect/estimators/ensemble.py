"""The default estimator: the density ratio, the mixture and the robust moments together."""

from __future__ import annotations

from dataclasses import replace

from service.core.detect.context import Context
from service.core.detect.estimators.density_ratio_estimator import DensityRatio
from service.core.detect.estimators.robust_mcd import robust
from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import (
    background_fit,
    noise_floor,
    normal_fit,
    population_power,
    tempered_log_odds,
)
from service.core.detect.standardize import PopulationUnits, without_copies
from service.core.explain import shapley_gaussian
from service.core.types import Float64Array

# The weights of the ensemble were chosen on validation contexts. `density_ratio` has most of the weight, since its odds
# move over a few nats where the Gaussians' move over hundreds.
ROBUST_WEIGHT, MIXTURE_WEIGHT, RATIO_WEIGHT = 0.2, 0.2, 0.6


class Ensemble(DensityRatio):
    """A logarithmic opinion pool (Genest & Zidek 1986): the weighted mean of three estimators' log odds.

    Each is right where another fails: `robust` where misfits vouch for each other, `mixture` where the normal images
    are a narrow part of a batch, `density_ratio` where they form several clumps. Where the context is about as wide as
    the population, the population says nothing about outliers: the Gaussians' odds then fade into the distance.

    Copies of an image count once, so that they do not vouch for each other, unless they are most of the batch.
    """

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        return super().fit(without_copies(points), floor, background)

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        points = without_copies(points)
        context = super().with_images(context, points, units)
        if len(points) <= 2 or not units.live.size:
            return context
        return replace(context, robust=robust(points, noise_floor(context.posterior_variance, units)))

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        ratio = super().log_odds(points, context, units)
        if context.robust is None:
            return ratio
        fits = normal_fit(context, units), context.robust
        return _pool(ratio, *tempered_log_odds(points, fits, background_fit(context, units)))

    def shapley_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        ratio = super().shapley_odds(points, context, units)
        if context.robust is None:
            return ratio
        background = background_fit(context, units)
        robust_shares, mixture_shares = (
            shapley_gaussian.shapley_odds(points, fit, background, population_power(fit, background))
            for fit in (context.robust, normal_fit(context, units))
        )
        return _pool(ratio, mixture_shares, robust_shares)


def _pool(ratio: Float64Array, mixture: Float64Array, robust: Float64Array) -> Float64Array:
    """Return the weighted mean of what three estimators say, log odds (n,) or their Shapley values (n, d)."""
    return RATIO_WEIGHT * ratio + MIXTURE_WEIGHT * mixture + ROBUST_WEIGHT * robust
