"""The registry of estimators, by name."""

from __future__ import annotations

from collections.abc import Callable

from service.core.detect.classical import classical, minimum_covariance_determinant, shrunk_ledoit_wolf, shrunk_oas
from service.core.detect.gaussian import Fit
from service.core.detect.robust_mcd import robust
from service.core.types import Float64Array

FITS: dict[str, Callable[[Float64Array, Float64Array], Fit]] = {
    "leave_one_out": classical,
    "ledoit_wolf": shrunk_ledoit_wolf,
    "oas": shrunk_oas,
    "mcd": minimum_covariance_determinant,
    "robust": robust,
}
