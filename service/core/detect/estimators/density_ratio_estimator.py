"""The estimator by the density ratio of context to population: kernels on a base of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from service.core.detect import density_ratio, discriminant
from service.core.detect.context import Context
from service.core.detect.estimators.gaussian_estimators import Mixture
from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.detect.gaussian_odds import (
    background_fit,
    marginal_log_ratios,
    noise_floor,
    normal_fit,
    outlier_log_odds,
)
from service.core.detect.standardize import PopulationUnits
from service.core.detect.wide_batch import WIDE, likeness, plain_fit, pool
from service.core.explain import shapley_gaussian
from service.core.explain.shapley_density_ratio import odds_shares
from service.core.types import BoolArray, Float64Array

# A mixture is fitted to at least so many images.
FEWEST_IN_HALF = 3


@dataclass(frozen=True)
class DensityRatio(Mixture):
    """The mixture's Gaussians as a base, and kernels on the context's images where neighbours are enough to tell.

    Without a sample of the population, or with two images or fewer, it is the mixture.

    pools_half  in graded batches the base is the mean of two log ratios: that of all images, and that of the half that
                lies nearest. Many misfits of one kind widen the first, so that they pass for normal ones, and take no
                part in the second, which knows less of the normal images. The linear discriminant is added to the log
                ratio there: to which side of the population a batch lies says more than few neighbours do
    """

    pools_half: bool = False

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        if len(points) <= 2 or not units.live.size:
            return context
        sample = units.sample
        if sample is None:
            warning = "This bundle holds no sample of its population, so density_ratio is as mixture: export it again."
            return replace(context, warnings=(*context.warnings, warning))
        if self.pools_half and units.population.graded:
            context = self._with_half(context, points, units)
        resolution = np.sqrt(context.posterior_variance[units.live]) / units.unit
        base = -self._base_odds(points, context, units)
        return replace(context, kernel=density_ratio.fit_kernel(points, resolution, sample, base))

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        ratios = self._log_ratios(points, context, units, -self._base_odds(points, context, units))
        return self._odds(points, ratios, context, units)

    def _log_ratios(
        self, points: Float64Array, context: Context, units: PopulationUnits, base: Float64Array
    ) -> Float64Array:
        """Return the log ratios (..., n) of context to population at points (n, d), from the Gaussians' (..., n)."""
        sample = units.sample
        if context.kernel is None or sample is None:
            return base
        return density_ratio.log_ratios(points, context.kernel, sample, base)

    def _odds(
        self, points: Float64Array, ratios: Float64Array, context: Context, units: PopulationUnits
    ) -> Float64Array:
        """Return the log odds (n,) of points (n, d) with log ratios (n,) by `_log_ratios`."""
        if context.kernel is None or units.sample is None:
            return -ratios
        ratio = -ratios - self._discriminant_shares(points, context, units).sum(axis=1)
        alike = likeness(context.moments, context.posterior_variance, units)
        if alike == 0:
            return np.asarray(ratio)
        normal = normal_fit(context, units)
        distance = mahalanobis_squared(points, normal.location, normal.covariance)
        return np.asarray(_share_of_ratio(alike) * ratio + alike / 2 * distance)

    def shapley_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        sample = units.sample
        if context.kernel is None or sample is None:
            return super().shapley_odds(points, context, units)

        background, fits = background_fit(context, units), self._base_fits(context, units)

        def base(points: Float64Array, axes: BoolArray) -> Float64Array:
            ratios = [marginal_log_ratios(points, fit, background, axes) for fit in fits]
            return np.asarray(sum(ratios) / len(ratios))

        shares = odds_shares(points, context.kernel, sample, base)
        shares = shares - self._discriminant_shares(points, context, units)
        alike = likeness(context.moments, context.posterior_variance, units)
        if alike == 0:
            return shares
        # Odds against no population at all are half the squared distance.
        distance = shapley_gaussian.shapley_odds(points, normal_fit(context, units), background, power=0.0)
        return np.asarray(_share_of_ratio(alike) * shares + alike * distance)

    def _discriminant_shares(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        """Return what the linear discriminant adds to the log ratio of points (n, d), axis by axis (n, d)."""
        if context.kernel is None or not self.pools_half or not units.population.graded:
            return np.zeros(points.shape)
        ridge = context.posterior_variance[units.live] / units.unit**2
        return discriminant.ratio_shares(points, context.kernel, units.correlation, ridge)

    def _base_fits(self, context: Context, units: PopulationUnits) -> list[Fit]:
        """Return the Gaussians of the normal images whose log ratios to the population have the base as their mean."""
        half = [] if context.robust is None or not self.pools_half else [context.robust]
        return [normal_fit(context, units), *half]

    def _base_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        """Return the Gaussian log odds (n,) of points (n, d)."""
        background = background_fit(context, units)
        odds = [outlier_log_odds(points, fit, background) for fit in self._base_fits(context, units)]
        return np.asarray(sum(odds) / len(odds))

    def _with_half(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        """Return the context with the moments of the half that lies nearest.

        To the degree that the batch is as wide as the population, all of it is normal: neither the mixture nor the half
        is more so than the rest.
        """
        half = self._fit_half(context, points, units)
        alike = likeness(context.moments, context.posterior_variance, units)
        if context.moments is None or alike < WIDE:
            return replace(context, robust=half)
        plain = plain_fit(context.moments, units)
        plain = Fit(plain.location, plain.covariance + np.diag(noise_floor(context.posterior_variance, units)))
        normal = pool(normal_fit(context, units), plain, alike)
        return replace(
            context,
            location=units.location_in_latents(normal.location),
            covariance=units.covariance_in_latents(normal.covariance),
            robust=pool(half, plain, alike),
        )

    def _fit_half(self, context: Context, points: Float64Array, units: PopulationUnits) -> Fit:
        """Return the moments of the half of points (n, d), n >= 3, with the least odds by the moments of all."""
        odds = super().log_odds(points, context, units)
        nearest = np.argsort(odds, kind="stable")[: max(-(-len(points) // 2), FEWEST_IN_HALF)]
        # In the order of the points, so that sums round alike whatever the odds are.
        floor = noise_floor(context.posterior_variance, units)
        return self.fit(points[np.sort(nearest)], floor, background_fit(context, units))


def _share_of_ratio(alike: float) -> float:
    """Return how much the density ratio counts: all, but in a batch that is as wide as the population."""
    return 1.0 - alike if alike >= WIDE else 1.0
