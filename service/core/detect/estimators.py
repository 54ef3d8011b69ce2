"""The registry of estimators: every one by its name, behind one protocol.

An estimator says what is normal among a context's images, how an image stands to it, and what each latent has to do
with that. To add one: a class or an instance here, its name in `service.core.types`, and the enum in the proto.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from service.core.detect import density_ratio
from service.core.detect.classical import (
    classical,
    is_degenerate,
    leave_one_out_distances,
    minimum_covariance_determinant,
    shrunk_ledoit_wolf,
    shrunk_oas,
)
from service.core.detect.context import Context
from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.detect.gaussian_odds import (
    background_fit,
    marginal_log_ratios,
    noise_floor,
    normal_fit,
    outlier_log_odds,
    population_power,
    tempered_log_odds,
)
from service.core.detect.mixture import fit_mixture
from service.core.detect.robust_mcd import robust
from service.core.detect.standardize import PopulationUnits, canonical_order, without_copies
from service.core.explain import shapley_gaussian
from service.core.explain.shapley_density_ratio import odds_shares
from service.core.types import ContextEstimatorName, EstimatorName, Float64Array
from service.errors import InvalidOption

BoolArray = NDArray[np.bool_]
# A function from points (n, d) and the noise floor (d,) to the moments of the normal ones.
MomentsFit = Callable[[Float64Array, Float64Array], Fit]

# The weights of the ensemble were chosen on validation contexts. `density_ratio` has most of the weight, since its odds
# move over a few nats where the Gaussians' move over hundreds.
ROBUST_WEIGHT, MIXTURE_WEIGHT, RATIO_WEIGHT = 0.2, 0.2, 0.6
# The spread of squared distances and of density ratios that the encoder's noise may cause: that of one latent.
NOISE_DISTANCE, NOISE_RATIO = 1.5, 0.15
# A mixture is fitted to at least so many images.
FEWEST_IN_HALF = 3


class Estimator(Protocol):
    """What every estimator can do. Points (n, d) are in population units, over the live latents.

    ranks_by_odds    images are ranked by log odds; otherwise by the squared distance
    compares_images  it compares images with those of the context, and searches for bandwidths: that takes memory
    smallest_scale   the spread of scores that the encoder's noise alone may cause
    saturates        its scores hardly grow beyond that of a typical image of the population
    """

    @property
    def ranks_by_odds(self) -> bool: ...

    @property
    def compares_images(self) -> bool: ...

    @property
    def smallest_scale(self) -> float: ...

    @property
    def saturates(self) -> bool: ...

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        """Return the moments of the normal points, with the noise `floor` (d,) on the covariance's diagonal.

        background  the population, with the same floor
        """

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        """Return `context` with what the estimator keeps of its images beside their moments."""

    def distances(
        self, points: Float64Array, context: Context, units: PopulationUnits, members: BoolArray
    ) -> Float64Array:
        """Return the squared distances (n,) of points; `members` (n,) are the images that `context` was fitted to."""

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        """Return log odds (n,) of outlier against inlier before calibration: they rank, and are right but for a
        constant and a scale of the context.
        """

    def shapley_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        """Return the Shapley values (n, d) of the log odds, up to a constant of the context."""


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
            # The published formula has no floor: it is exact wherever the others' covariance can be inverted.
            floor = noise_floor(context.posterior_variance, units)
            needed = floor if is_degenerate(points[order]) else np.zeros_like(floor)
            distances[order] = leave_one_out_distances(points[order], needed)
        return distances


class Mixture(GaussianEstimator):
    """Context against population, by expectation maximisation."""

    def fit(self, points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
        return fit_mixture(points, floor, background)


@dataclass(frozen=True)
class DensityRatio(Mixture):
    """The mixture's Gaussians as a base, and kernels on the context's images where neighbours are enough to tell.

    Without a sample of the population, or with two images or fewer, it is the mixture.

    pools_half  in graded batches the base is the mean of two log ratios: that of all images, and that of the half that
                lies nearest. Many misfits of one kind widen the first, so that they pass for normal ones, and take no
                part in the second, which knows less of the normal images
    """

    pools_half: bool = False

    def with_images(self, context: Context, points: Float64Array, units: PopulationUnits) -> Context:
        if len(points) <= 2 or not units.live.size:
            return context
        sample = units.sample()
        if sample is None:
            warning = "This bundle holds no sample of its population, so density_ratio is as mixture: export it again."
            return replace(context, warnings=(*context.warnings, warning))
        if self.pools_half and units.population.graded:
            context = replace(context, robust=self._fit_half(context, points, units))
        resolution = np.sqrt(context.posterior_variance[units.live]) / units.unit
        base = -self._base_odds(points, context, units)
        return replace(context, kernel=density_ratio.fit_kernel(points, resolution, sample, base))

    def log_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        gaussian, sample = self._base_odds(points, context, units), units.sample()
        if context.kernel is None or sample is None:
            return gaussian
        ratio = -density_ratio.log_ratios(points, context.kernel, sample, -gaussian)
        fading = _fading(context, units)
        if fading == 0:
            return ratio
        normal = normal_fit(context, units)
        return np.asarray(ratio + fading / 2 * mahalanobis_squared(points, normal.location, normal.covariance))

    def shapley_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        sample = units.sample()
        if context.kernel is None or sample is None:
            return super().shapley_odds(points, context, units)

        background, fits = background_fit(context, units), self._base_fits(context, units)

        def base(points: Float64Array, axes: BoolArray) -> Float64Array:
            ratios = [marginal_log_ratios(points, fit, background, axes) for fit in fits]
            return np.asarray(sum(ratios) / len(ratios))

        shares = odds_shares(points, context.kernel, sample, base)
        fading = _fading(context, units)
        if fading == 0:
            return shares
        # Odds against no population at all are half the squared distance.
        return np.asarray(
            shares + fading * shapley_gaussian.shapley_odds(points, normal_fit(context, units), background, power=0.0)
        )

    def _base_fits(self, context: Context, units: PopulationUnits) -> list[Fit]:
        """Return the Gaussians of the normal images whose log ratios to the population have the base as their mean."""
        half = [] if context.robust is None or not self.pools_half else [context.robust]
        return [normal_fit(context, units), *half]

    def _base_odds(self, points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
        """Return the Gaussian log odds (n,) of points (n, d)."""
        background = background_fit(context, units)
        odds = [outlier_log_odds(points, fit, background) for fit in self._base_fits(context, units)]
        return np.asarray(sum(odds) / len(odds))

    def _fit_half(self, context: Context, points: Float64Array, units: PopulationUnits) -> Fit:
        """Return the moments of the half of points (n, d), n >= 3, with the least odds by the moments of all."""
        odds = super().log_odds(points, context, units)
        nearest = np.argsort(odds, kind="stable")[: max(-(-len(points) // 2), FEWEST_IN_HALF)]
        # In the order of the points, so that sums round alike whatever the odds are.
        floor = noise_floor(context.posterior_variance, units)
        return self.fit(points[np.sort(nearest)], floor, background_fit(context, units))


def _fading(context: Context, units: PopulationUnits) -> float:
    """Return how much of a graded context's squared distance counts beside its density ratio, from 0 to 1.

    A folder that was learned may be sent as one batch: it is as wide as the population, and the ratio says nothing.
    How wide it is, the plain moments of its images tell.
    """
    moments = context.moments
    if not units.population.graded or moments is None or moments.size <= 2 * units.live.size:
        return 0.0
    background = background_fit(context, units)
    location = (moments.mean - units.population.location)[units.live] / units.unit
    covariance = moments.scatter[np.ix_(units.live, units.live)] / np.outer(units.unit, units.unit) / (moments.size - 1)
    floor = noise_floor(context.posterior_variance, units)
    return (1.0 - population_power(Fit(location, covariance + np.diag(floor)), background)) ** 2


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
        background = background_fit(context, units)
        robust_odds = tempered_log_odds(points, context.robust, background)
        mixture_odds = tempered_log_odds(points, normal_fit(context, units), background)
        return _pool(ratio, mixture_odds, robust_odds)

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


ESTIMATORS: dict[EstimatorName, Estimator] = {
    "ensemble": Ensemble(classical, ranks_by_odds=True, compares_images=True, smallest_scale=NOISE_RATIO),
    "density_ratio": DensityRatio(
        classical,
        ranks_by_odds=True,
        compares_images=True,
        smallest_scale=NOISE_RATIO,
        saturates=True,
        pools_half=True,
    ),
    "mixture": Mixture(classical, ranks_by_odds=True, smallest_scale=NOISE_DISTANCE / 2),
    "robust": GaussianEstimator(robust),
    "leave_one_out": LeaveOneOut(classical),
    "ledoit_wolf": GaussianEstimator(shrunk_ledoit_wolf),
    "oas": GaussianEstimator(shrunk_oas),
    "mcd": GaussianEstimator(minimum_covariance_determinant),
}
# A merged context keeps no images to estimate from: its moments are those of its parts' images.
MERGED = GaussianEstimator(classical, ranks_by_odds=True)


def estimator_named(name: str) -> Estimator:
    """Return the estimator of that name. Raises InvalidOption, which lists the names."""
    for known in get_args(EstimatorName):
        if name == known:
            return ESTIMATORS[known]
    raise InvalidOption(f"estimator is {name!r}, expected one of {', '.join(ESTIMATORS)}.")


def estimator_of(context: Context) -> Estimator:
    """Return the estimator that a context was fitted by, or what stands for it in a merged one."""
    name: ContextEstimatorName = context.estimator
    return MERGED if name == "moments" else ESTIMATORS[name]
