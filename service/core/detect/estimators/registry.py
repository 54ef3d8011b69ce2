"""The registry of estimators: every one by its name, behind one protocol.

An estimator says what is normal among a context's images, how an image stands to it, and what each latent has to do
with that. To add one, write a class or a function in this package, and add a line here, its name in
`service.core.types`, and the enum in the proto.
"""

from __future__ import annotations

from typing import Protocol, get_args

from service.core.detect.context import Context
from service.core.detect.estimators.classical import (
    classical,
    minimum_covariance_determinant,
    shrunk_ledoit_wolf,
    shrunk_oas,
)
from service.core.detect.estimators.density_ratio_estimator import DensityRatio
from service.core.detect.estimators.ensemble import Ensemble
from service.core.detect.estimators.gaussian_estimators import NOISE_DISTANCE, GaussianEstimator, LeaveOneOut, Mixture
from service.core.detect.estimators.robust_mcd import robust
from service.core.detect.gaussian import Fit
from service.core.detect.standardize import PopulationUnits
from service.core.types import BoolArray, ContextEstimatorName, EstimatorName, Float64Array
from service.errors import InvalidOption

# The spread of density ratios that the encoder's noise may cause: that of one latent.
NOISE_RATIO = 0.15


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
        """Return `context` with what the estimator keeps of its images beside their moments, or with their scores."""

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
