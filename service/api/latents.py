"""Latents that a client sends to be decoded: numbers within what the networks can take."""

from __future__ import annotations

import numpy as np

from service.api.options import MOST_PICTURES
from service.core.edit import limits
from service.core.types import Float64Array
from service.errors import InvalidInput, ShapeMismatch

LATENTS_EXAMPLE = 'Send {"latents": [[0.1, -1.3, ...], ...]}, as POST /encode answers them in `mean`.'


def check_latents(values: object, latent_dim: int) -> Float64Array:
    """Return `values` as latents (n, L), n from 1 to MOST_PICTURES.

    Raises InvalidInput or ShapeMismatch.
    """
    try:
        latents = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:  # the last of a whole number that no double holds
        raise InvalidInput(f"latents is no table of numbers: {error}.", LATENTS_EXAMPLE) from error
    if latents.ndim != 2 or latents.shape[1] != latent_dim:
        raise ShapeMismatch(f"latents has shape {latents.shape}, expected (n, {latent_dim}).", LATENTS_EXAMPLE)
    if not 1 <= len(latents) <= MOST_PICTURES:
        raise InvalidInput(f"{len(latents)} latents came, expected 1 to {MOST_PICTURES}.", "Send them in parts.")
    if not (np.abs(latents) <= limits.FURTHEST).all():  # nan fails as well
        raise InvalidInput(
            f"latents holds values that are not finite, or beyond {limits.FURTHEST:g}.",
            "Usual ones are within 3.",
        )
    return latents
