"""Traversals of one or two latents, and interpolations between two images."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np

from service.core.edit.limits import FURTHEST, MOST_IMAGES, check_count
from service.core.types import Float64Array
from service.errors import InvalidOption


def traverse(
    latents: Float64Array,
    dims: Sequence[int],
    steps: int,
    location: Float64Array,
    covariance: Float64Array,
    span: float = 2.0,
) -> Float64Array:
    """Return latents (len(dims), steps, L): in row r, `latents` (L,) with dims[r] varied over a range.

    The range is location -+ `span` standard deviations, of the context or of the population, by the moments passed.
    Raises InvalidOption without dims, and for steps or a span out of range.
    """
    if not dims:
        raise InvalidOption("0 latents to traverse, expected at least 1.", "Name the latents that should vary.")
    check_count("steps", steps, 2, MOST_IMAGES // len(dims))
    rows = np.tile(np.asarray(latents, dtype=np.float64), (len(dims), steps, 1))
    for row, dim in zip(rows, dims, strict=True):
        row[:, dim] = _range(dim, steps, location, covariance, span)
    return rows


def traverse_plane(
    latents: Float64Array,
    dims: tuple[int, int],
    steps: int,
    location: Float64Array,
    covariance: Float64Array,
    span: float = 2.0,
) -> Float64Array:
    """Return latents (steps, steps, L): `latents` (L,) with dims[0] varied down the rows and dims[1] along each row.

    Ranges and errors are those of `traverse`. Also raises InvalidOption where both dims are the same.
    """
    first, second = dims
    if first == second:
        raise InvalidOption(f"The plane has latent {first} on both axes.", "Name two different latents.")
    check_count("steps", steps, 2, isqrt(MOST_IMAGES))
    grid = np.tile(np.asarray(latents, dtype=np.float64), (steps, steps, 1))
    grid[:, :, first] = _range(first, steps, location, covariance, span)[:, None]
    grid[:, :, second] = _range(second, steps, location, covariance, span)
    return grid


def interpolate(start: Float64Array, end: Float64Array, frames: int) -> Float64Array:
    """Return latents (frames, L) on the straight path from `start` (L,) to `end` (L,), both included.

    D2 is convex: no frame is further from a context than the further of the two ends.
    Raises InvalidOption for fewer than 2 frames or too many.
    """
    check_count("frames", frames, 2, MOST_IMAGES)
    share = np.linspace(0.0, 1.0, frames)[:, None]
    path: Float64Array = (1 - share) * start + share * end
    return path


def _range(dim: int, steps: int, location: Float64Array, covariance: Float64Array, span: float) -> Float64Array:
    """Return the values (steps,) that a latent takes. Raises InvalidOption for a span out of range."""
    if not 0 < span <= FURTHEST:
        raise InvalidOption(
            f"The span is {span}; expected a positive number of standard deviations, at most {FURTHEST:g}.",
            "2 shows what is usual, 3 the rare.",
        )
    values: Float64Array = location[dim] + np.linspace(-span, span, steps) * np.sqrt(covariance[dim, dim])
    return values
