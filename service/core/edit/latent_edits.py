"""Edits of latents: counterfactual, projection, set and shift, as pure functions in float64.

Latents are the encoder's means, (n, L) or (L,). A context is its `location` (L,), its `covariance` (L, L) and `live`
(d,), the indices of the latents that distances are over; the other latents are dead. With delta = x - location,
Omega = covariance^-1 over the live latents and g = Omega delta, the squared distance is D2 = delta' g.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from service.core.detect.gaussian import mahalanobis_squared
from service.core.edit.limits import EXTREME, check_value
from service.core.types import BoolArray, Float64Array, IndexArray
from service.errors import InvalidOption

Unit = Literal["latent", "sd", "quantile"]

# An edit to the rim of a context stops short of it by this share, so that rounding leaves it inside.
RIM = 1e-9


def distance_squared(
    latents: Float64Array, location: Float64Array, covariance: Float64Array, live: IndexArray
) -> Float64Array:
    """Return D2 (n,) of latents (n, L)."""
    return mahalanobis_squared(latents[:, live], location[live], covariance[np.ix_(live, live)])


def counterfactual(
    latents: Float64Array,
    repaired: BoolArray,
    location: Float64Array,
    covariance: Float64Array,
    live: IndexArray,
) -> Float64Array:
    """Return latents (n, L) whose dims `repaired` (n, L) are at their mean given the image's other live dims.

    Dead dims stay as they are, even if `repaired` names them. With S the repaired dims and R the others,
        y_S = x_S - Omega_SS^-1 g_S = location_S + Sigma_SR Sigma_RR^-1 delta_R,
    and D2 falls by exactly g_S' Omega_SS^-1 g_S. The second form is computed: it needs no inverse.
    """
    edited = np.array(latents, dtype=np.float64)
    unit = np.sqrt(np.diag(covariance)[live])
    correlation = covariance[np.ix_(live, live)] / np.outer(unit, unit)
    delta = (edited[:, live] - location[live]) / unit  # (n, d)
    selected = repaired[:, live]
    # One system for each image, all of one size: Sigma_RR where both dims are in R, the identity elsewhere.
    rest = ~selected
    both = rest[:, :, None] & rest[:, None, :]
    system = np.where(both, correlation, np.eye(len(live)))  # (n, d, d)
    weights = np.linalg.solve(system, np.where(rest, delta, 0.0)[..., None])[..., 0]  # Sigma_RR^-1 delta_R, 0 on S
    conditional = location[live] + unit * (weights @ correlation)
    edited[:, live] = np.where(selected, conditional, edited[:, live])
    return edited


def compensated(latents: Float64Array, reencoded: Float64Array, repaired: BoolArray) -> Float64Array:
    """Return latents (n, L) corrected for what the encoder reads from their decoded images, `reencoded` (n, L).

    The dims `repaired` (n, L) move further by as much as they fell short. That is one step of a fixed-point iteration
    towards an image that encodes to `latents`.
    """
    return np.where(repaired, 2 * latents - reencoded, latents)


def project(
    latents: Float64Array, location: Float64Array, covariance: Float64Array, live: IndexArray, radius_squared: float
) -> Float64Array:
    """Return latents (n, L) moved straight towards the location until D2 = `radius_squared`. Those inside stay.

    y = location + delta min(1, sqrt(radius_squared / D2)): the nearest inlier in the context's own metric.
    """
    edited = np.array(latents, dtype=np.float64)
    distances = distance_squared(edited, location, covariance, live)
    outside = np.flatnonzero(distances > radius_squared)
    scale = np.sqrt(radius_squared * (1 - RIM) / distances[outside])
    moved = np.ix_(outside, live)
    edited[moved] = location[live] + (edited[moved] - location[live]) * scale[:, None]
    return edited


def move(
    latents: Float64Array,
    values: Mapping[int, float],
    unit: Unit,
    relative: bool,
    location: Float64Array,
    covariance: Float64Array,
) -> Float64Array:
    """Return latents (..., L) with each index in `values` set to its value or, if `relative`, shifted by it.

    unit  "latent": the latent's own unit; "sd": standard deviations from the context's location; "quantile": of the
          latent's Gaussian marginal in the context, where a shift stops short of 0 and 1

    Raises InvalidOption beyond +-FURTHEST, and for a quantile that is not between 0 and 1.
    """
    edited = np.array(latents, dtype=np.float64)
    for index, value in values.items():
        middle, deviation = location[index], np.sqrt(covariance[index, index])
        if unit == "latent":
            edited[..., index] = check_value(value) + (edited[..., index] if relative else 0.0)
        elif unit == "sd":
            edited[..., index] = check_value(value) * deviation + (edited[..., index] if relative else middle)
        else:
            if not -1 < value < 1 or not (relative or value > 0):
                raise InvalidOption(
                    f"The quantile is {value}; expected more than 0 and less than 1, for a shift between -1 and 1.",
                    "0.5 is the context's middle.",
                )
            current = edited[..., index]
            current_quantile = ndtr((current - middle) / deviation)
            quantile = np.clip(current_quantile + value, EXTREME, 1 - EXTREME) if relative else value
            target = middle + deviation * ndtri(quantile)
            # A latent that is beyond the extremes already is not moved back by a shift outwards.
            edited[..., index] = np.where((target - current) * value > 0, target, current) if relative else target
    return edited
