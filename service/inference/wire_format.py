"""How `CheckedLatents` travels from the networks' process: both outputs, by name, in one structured array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.inference.protocol import CheckedLatents

LATENTS, RECONSTRUCTION_ERROR = "latents", "reconstruction_error"


def pack(checked: CheckedLatents) -> NDArray[np.void]:
    """Return one structured array (n,) with a field for each output."""
    fields: list[Any] = [
        (LATENTS, np.float32, checked.latents.shape[1:]),
        (RECONSTRUCTION_ERROR, np.float32),
    ]
    rows = np.empty(len(checked.latents), dtype=fields)
    rows[LATENTS], rows[RECONSTRUCTION_ERROR] = checked.latents, checked.reconstruction_error
    return rows


def unpack(rows: NDArray[np.void]) -> CheckedLatents:
    """Return the outputs that `pack` was given, each contiguous."""
    return CheckedLatents(np.ascontiguousarray(rows[LATENTS]), np.ascontiguousarray(rows[RECONSTRUCTION_ERROR]))
