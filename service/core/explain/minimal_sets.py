"""Minimal sets: the fewest latents of an image whose repair brings it inside the context."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from service.core.detect import posterior
from service.core.detect.context import Context
from service.core.detect.gaussian import Fit
from service.core.detect.standardize import PopulationUnits
from service.core.explain.attribution import _over_latents
from service.core.explain.shapley_gaussian import departure
from service.core.population import Population
from service.core.types import BoolArray, Float64Array

Inside = Callable[[Float64Array], BoolArray]

# Up to this many live latents every set is tried; with more, sets grow by one latent at a time.
EXACT_DIMS = 12

# Images that are searched at a time: all sets of all of them are in memory together.
ROWS_AT_ONCE = 256

# Share of a distance that rounding may add to it.
ROUNDING = 1e-9


def minimal_sets(latents: NDArray[np.floating], context: Context, population: Population) -> BoolArray:
    """Return the fewest latents (n, L) of each image whose repair brings it inside `context` (`smallest_sets`)."""
    units = PopulationUnits.of(population)

    def inside(points: Float64Array) -> BoolArray:
        means = np.tile(population.location, (len(points), 1))
        means[:, units.live] += points * units.unit
        return posterior.inside(means, context, population)

    points, fit = units.points(latents), Fit(*units.in_units(context))
    return _over_latents(smallest_sets(points, fit, context.radius_squared, inside), units)


def repair_z(
    latents: NDArray[np.floating], repaired: BoolArray, context: Context, population: Population
) -> Float64Array:
    """Return how far off the latents in `repaired` (n, L) are, given the others, in sd (`repair_deviations`)."""
    units = PopulationUnits.of(population)
    fit = Fit(*units.in_units(context))
    return _over_latents(repair_deviations(units.points(latents), fit, repaired[:, units.live]), units)


def smallest_sets(points: Float64Array, fit: Fit, radius_squared: float, inside: Inside) -> BoolArray:
    """Return the smallest set of dims (n, d) whose repair makes each image an inlier.

    `inside` tells of points (m, d) which are inliers (m,). To repair a set S is to give it its mean given the rest,
    y_S = x_S - Omega_SS^-1 g_S, which lowers D2 by g_S' Omega_SS^-1 g_S. Of sets of one size the one that lowers D2
    most is taken. An image that is inside needs no dim; one that no set brings inside needs all. Beyond EXACT_DIMS dims
    sets are not searched exhaustively: each step adds the dim that lowers D2 most.

    No point whose D2 exceeds `radius_squared` may be inside, so that most sets need no call of `inside`.
    """
    selected = np.zeros(points.shape, dtype=bool)
    outside = np.flatnonzero(~inside(points))
    for start in range(0, len(outside), ROWS_AT_ONCE):
        rows = outside[start : start + ROWS_AT_ONCE]
        if points.shape[1] <= EXACT_DIMS:
            selected[rows] = _exact_sets(points[rows], fit, radius_squared, inside)
        else:
            selected[rows] = _grown_sets(points[rows], fit, inside)
    return selected


def repair_deviations(points: Float64Array, fit: Fit, repaired: BoolArray) -> Float64Array:
    """Return (x_k - E[x_k | R]) / sd[x_k | R] for the dims k in `repaired` (n, d), with R the others; 0 for R.

    For a single dim this is the conditional z, for all dims together the marginal z.
    """
    _, gradient, precision = departure(points, fit)
    deviations = np.empty(points.shape)
    for start in range(0, len(points), ROWS_AT_ONCE):  # each row has matrices (d, d) of its own
        rows = slice(start, start + ROWS_AT_ONCE)
        both = repaired[rows, :, None] & repaired[rows, None, :]
        # Omega_SS^-1 is the covariance of the set S given R; the identity elsewhere keeps the systems of one size.
        covariance = np.linalg.inv(np.where(both, precision, np.eye(len(precision))))
        step = (covariance @ np.where(repaired[rows], gradient[rows], 0)[:, :, None])[:, :, 0]
        deviations[rows] = step / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return deviations


def _exact_sets(points: Float64Array, fit: Fit, radius_squared: float, inside: Inside) -> BoolArray:
    n, d = points.shape
    delta, gradient, precision = departure(points, fit)
    distance = (delta * gradient).sum(axis=1)
    selected = np.ones((n, d), dtype=bool)
    left = np.arange(n)
    for size in range(1, d):
        sets = np.array(list(combinations(range(d), size)))  # (s, size)
        pull = gradient[left].T[sets]  # (s, size, m)
        step = np.linalg.solve(precision[sets[:, :, None], sets[:, None, :]], pull)
        drop = (pull * step).sum(axis=1)  # (s, m)
        near = distance[left] - drop <= radius_squared + ROUNDING * distance[left]
        which, row = np.nonzero(near)
        repaired = points[left[row]]
        repaired[np.arange(len(row))[:, None], sets[which]] -= step[which, :, row]
        near[which, row] = inside(repaired)
        best = np.where(near, drop, -np.inf).argmax(axis=0)
        solved = near.any(axis=0)
        selected[left[solved]] = False
        selected[left[solved, None], sets[best[solved]]] = True
        left = left[~solved]
        if not left.size:
            break
    return selected


def _grown_sets(points: Float64Array, fit: Fit, inside: Inside) -> BoolArray:
    selected = np.zeros(points.shape, dtype=bool)
    rows = np.arange(len(points))
    for _ in range(points.shape[1]):
        # With S repaired, D2 is that of the rest R under Sigma_RR; the identity elsewhere keeps one size.
        rest = ~selected[rows]
        both = rest[:, :, None] & rest[:, None, :]
        precision = np.linalg.inv(np.where(both, fit.covariance, np.eye(len(fit.covariance))))
        delta = np.where(rest, points[rows] - fit.location, 0)
        gradient = (precision @ delta[:, :, None])[:, :, 0]
        repaired = np.where(rest, points[rows], fit.location + gradient @ fit.covariance)
        drop = np.where(rest, gradient**2 / np.diagonal(precision, axis1=1, axis2=2), -1)
        outside = ~inside(repaired)
        rows = rows[outside]
        if not rows.size:
            break
        selected[rows, drop[outside].argmax(axis=1)] = True
    return selected
