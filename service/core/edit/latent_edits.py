"""Edits: what an image would have to be, as pure functions on latents in float64.

Latents are the encoder's means, (n, L) or (L,). A context comes as its `location` (L,), its `covariance` (L, L)
and `live` (d,), the indices of the latents that take part in distances; the others are dead. With
delta = x - location, Omega = covariance^-1 over the live latents and g = Omega delta, the squared distance is
D2 = delta' g.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import chi2

from service.bundle.store import Latent
from service.core.detect.classical import mahalanobis_squared
from service.core.detect.context import Float64Array
from service.errors import ContextTooSmall, InvalidOption, UnknownLatent

IndexArray = NDArray[np.intp]

Unit = Literal["latent", "sd", "quantile"]

# A shift by quantiles goes no further than to this one, or to 1 less it.
EXTREME = 1e-3
# The prior has standard deviation 1: nothing that a decoder can draw lies further out.
FURTHEST = 1e3
MOST_IMAGES = 1000  # that one answer may hold
# An edit that goes to the rim of the context stops this share short of it, so that rounding keeps it inside.
RIM = 1e-9
# Beyond it exp(logvar) says nothing; within it every sample is finite.
LARGEST_LOGVAR = 50.0


def resolve(wanted: str | int, latents: Sequence[Latent]) -> int:
    """The index of the latent called `wanted` (in any case) or of that index (5 or "5"). Raises UnknownLatent."""
    text = str(wanted).strip()
    indices = {str(latent.index): latent.index for latent in latents}
    indices |= {latent.name.casefold(): latent.index for latent in latents}
    indices |= {latent.name: latent.index for latent in latents}  # last, so that the exact spelling wins
    for spelling in (text, text.casefold()):
        if spelling in indices:
            return indices[spelling]
    raise UnknownLatent(
        f"This model has no latent {text[:80]!r}; it has {', '.join(latent.name for latent in latents)}.",
        f"Name one of them, or give its index, 0 to {len(latents) - 1}.",
    )


def resolve_values(values: Mapping[str, float], latents: Sequence[Latent]) -> dict[int, float]:
    """`values` by latent index. Raises UnknownLatent, and InvalidOption where two keys mean the same latent."""
    resolved: dict[int, float] = {}
    for wanted, value in values.items():
        index = resolve(wanted, latents)
        if index in resolved:
            raise InvalidOption(f"The latent {latents[index].name!r} is given twice.", "Give each latent one value.")
        resolved[index] = value
    return resolved


def distance_squared(
    latents: Float64Array, location: Float64Array, covariance: Float64Array, live: IndexArray
) -> Float64Array:
    """D2 (n,) of latents (n, L)."""
    return mahalanobis_squared(latents[:, live], location[live], covariance[np.ix_(live, live)])


def counterfactual(
    latents: Float64Array,
    repaired: NDArray[np.bool_],
    location: Float64Array,
    covariance: Float64Array,
    live: IndexArray,
) -> Float64Array:
    """Latents (n, L) with the dims `repaired` (n, L) of each image at their mean given its other live dims.

    Dead dims stay as they are, whatever `repaired` says. With S the repaired dims and R the rest,
        y_S = x_S - Omega_SS^-1 g_S = location_S + Sigma_SR Sigma_RR^-1 delta_R,
    and D2 falls by exactly g_S' Omega_SS^-1 g_S. The second form is the one computed: it needs no inverse.
    """
    edited = np.array(latents, dtype=np.float64)
    unit = np.sqrt(np.diag(covariance)[live])
    correlation = covariance[np.ix_(live, live)] / np.outer(unit, unit)
    delta = (edited[:, live] - location[live]) / unit  # (n, d)
    chosen = repaired[:, live]
    # One system for each image, all of the same size: Sigma_RR where both dims are kept, the identity elsewhere.
    kept = ~chosen
    both = kept[:, :, None] & kept[:, None, :]
    system = np.where(both, correlation, np.eye(len(live)))  # (n, d, d)
    weights = np.linalg.solve(system, np.where(kept, delta, 0.0)[..., None])[..., 0]  # Sigma_RR^-1 delta_R, 0 on S
    conditional = location[live] + unit * (weights @ correlation)
    edited[:, live] = np.where(chosen, conditional, edited[:, live])
    return edited


def compensated(latents: Float64Array, reencoded: Float64Array, repaired: NDArray[np.bool_]) -> Float64Array:
    """Latents (n, L) that make up for what the decoder made of `latents`, as the encoder sees it (`reencoded`).

    The dims `repaired` (n, L) move on by as much as they fell short: one step of a fixed-point iteration towards a
    picture in which the encoder finds what was meant.
    """
    return np.where(repaired, 2 * latents - reencoded, latents)


def project(
    latents: Float64Array, location: Float64Array, covariance: Float64Array, live: IndexArray, radius_squared: float
) -> Float64Array:
    """Latents (n, L) moved straight towards the location until D2 = `radius_squared`; what is inside stays.

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
    """Latents (..., L) with each index in `values` set to its value or, if `relative`, shifted by it.

    unit  "latent": the latent's own; "sd": standard deviations from the context's location; "quantile": of its
          Gaussian marginal in the context, where a shift stops short of 0 and 1.
    Raises InvalidOption beyond +-FURTHEST, and for quantiles to be set unless above 0 and below 1.
    """
    edited = np.array(latents, dtype=np.float64)
    for index, value in values.items():
        middle, deviation = location[index], np.sqrt(covariance[index, index])
        if unit == "latent":
            edited[..., index] = _within(value) + (edited[..., index] if relative else 0.0)
        elif unit == "sd":
            edited[..., index] = _within(value) * deviation + (edited[..., index] if relative else middle)
        else:
            if not -1 < value < 1 or not (relative or value > 0):
                raise InvalidOption(
                    f"The quantile is {value}; expected more than 0 and less than 1, for a shift between -1 and 1.",
                    "0.5 is the context's middle.",
                )
            now = edited[..., index]
            share = ndtr((now - middle) / deviation)
            quantile = np.clip(share + value, EXTREME, 1 - EXTREME) if relative else value
            target = middle + deviation * ndtri(quantile)
            # What lies beyond the extremes already is not drawn back by a shift that would go further.
            edited[..., index] = np.where((target - now) * value > 0, target, now) if relative else target
    return edited


def traverse(
    latents: Float64Array,
    dims: Sequence[int],
    steps: int,
    location: Float64Array,
    covariance: Float64Array,
    span: float = 2.0,
) -> Float64Array:
    """Latents (len(dims), steps, L): in row r, `latents` (L,) with dims[r] going across a range, all else as it is.

    The range is location -+ `span` standard deviations: the context's, or the population's if it is its moments
    that are given. Raises InvalidOption without dims, and for steps or a span out of range.
    """
    if not dims:
        raise InvalidOption("0 latents to traverse, expected at least 1.", "Name the latents that should vary.")
    _check_count("steps", steps, 2, MOST_IMAGES // len(dims))
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
    """Latents (steps, steps, L): `latents` (L,) with dims[0] varying down the rows and dims[1] along each row.

    Ranges and errors as in `traverse`; also InvalidOption where the two dims are one.
    """
    first, second = dims
    if first == second:
        raise InvalidOption(f"The plane has latent {first} on both axes.", "Name two different latents.")
    _check_count("steps", steps, 2, isqrt(MOST_IMAGES))
    grid = np.tile(np.asarray(latents, dtype=np.float64), (steps, steps, 1))
    grid[:, :, first] = _range(first, steps, location, covariance, span)[:, None]
    grid[:, :, second] = _range(second, steps, location, covariance, span)
    return grid


def interpolate(start: Float64Array, end: Float64Array, frames: int) -> Float64Array:
    """Latents (frames, L) on the straight path from `start` (L,) to `end` (L,), both included.

    D2 is convex, so no frame is further from any context than the further of the two ends.
    Raises InvalidOption for fewer than 2 frames or too many.
    """
    _check_count("frames", frames, 2, MOST_IMAGES)
    share = np.linspace(0.0, 1.0, frames)[:, None]
    path: Float64Array = (1 - share) * start + share * end
    return path


def sample_empirical(
    latents: NDArray[np.floating], count: int, rng: np.random.Generator
) -> tuple[Float64Array, IndexArray]:
    """`count` latents (count, L), each from the posterior of one of the normal images' `latents` (n, 2, L).

    y = mean + exp(logvar / 2) noise of an image drawn with replacement; `drawn` (count,) says which image.
    Raises InvalidOption for a count out of range, ContextTooSmall where there is no image to draw.
    """
    _check_count("samples", count, 1, MOST_IMAGES)
    if len(latents) == 0:
        raise ContextTooSmall(
            "The context holds no normal image to draw from.", "Send normal images, or sample with the gaussian."
        )
    drawn = rng.integers(len(latents), size=count)
    mean, logvar = np.moveaxis(latents[drawn].astype(np.float64), 1, 0)
    deviation = np.exp(np.clip(logvar, -LARGEST_LOGVAR, LARGEST_LOGVAR) / 2)
    return mean + deviation * rng.standard_normal(mean.shape), drawn


def sample_gaussian(
    count: int,
    location: Float64Array,
    covariance: Float64Array,
    live: IndexArray,
    radius_squared: float,
    rng: np.random.Generator,
) -> Float64Array:
    """`count` latents (count, L) from N(location, covariance) given D2 <= `radius_squared`; dead dims at the location.

    Exact, without rejection: of a Gaussian, direction and D2 are independent, and D2 is chi-square with d degrees
    of freedom, here drawn through its inverse distribution function cut off at `radius_squared`.
    Raises InvalidOption for a count out of range.
    """
    _check_count("samples", count, 1, MOST_IMAGES)
    samples = np.tile(location, (count, 1))
    d = len(live)
    if d == 0:
        return samples
    direction = rng.standard_normal((count, d))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    share = rng.random(count) * chi2.cdf(radius_squared, d)
    radius = np.sqrt(np.minimum(chi2.ppf(share, d), radius_squared * (1 - RIM)))
    factor = np.linalg.cholesky(covariance[np.ix_(live, live)])
    samples[:, live] += radius[:, None] * direction @ factor.T
    return samples


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        raise InvalidOption(f"{count} {what} asked for; expected {least} to {most}.")


def _range(dim: int, steps: int, location: Float64Array, covariance: Float64Array, span: float) -> Float64Array:
    if not 0 < span <= FURTHEST:
        raise InvalidOption(
            f"The span is {span}; expected a positive number of standard deviations, at most {FURTHEST:g}.",
            "2 shows what is usual, 3 the rare.",
        )
    values: Float64Array = location[dim] + np.linspace(-span, span, steps) * np.sqrt(covariance[dim, dim])
    return values


def _within(value: float) -> float:
    if not abs(value) <= FURTHEST:  # nan fails as well
        raise InvalidOption(f"The value {value} came; expected a number between -{FURTHEST:g} and {FURTHEST:g}.")
    return value
