"""The array types of the mathematics, and the names of estimators, sources and reliabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]

EstimatorName = Literal["ensemble", "density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd"]

# "moments" is a merged context's: no images are kept to estimate from, so it has the plain moments of all images.
ContextEstimatorName = Literal[
    "ensemble", "density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd", "moments"
]

DEFAULT_ESTIMATOR: EstimatorName = "ensemble"  # of a bundle that names no other

Source = Literal["batch", "reference", "population"]

Reliability = Literal["high", "low"]

# However usual in its batch, an error so many times the population's limit is foreign: see `service.core.detect.ood`.
LARGEST_OOD_LIMIT = 10.0
