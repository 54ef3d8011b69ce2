"""The names of estimators, sources and reliabilities, and the array type of the mathematics."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]

EstimatorName = Literal["density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd"]

# A merged context keeps no images to estimate from: its moments are what its parts' images have.
ContextEstimatorName = Literal[
    "density_ratio", "mixture", "robust", "leave_one_out", "ledoit_wolf", "oas", "mcd", "moments"
]

DEFAULT_ESTIMATOR: EstimatorName = "density_ratio"  # of a bundle that names no other

Source = Literal["batch", "reference", "population"]

Reliability = Literal["high", "low"]
