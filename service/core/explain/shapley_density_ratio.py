"""Shapley values of the density ratio's log odds (`service/core/detect/density_ratio.py`), axis by axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import comb

import numpy as np

from service.core.detect.density_ratio import (
    DECIMALS,
    Kernel,
    density_of,
    kernels_between,
    own_places,
    own_weights,
    ratios,
    weights_of_base,
)
from service.core.types import BoolArray, Float32Array, Float64Array, IndexArray

# A function of points (n, d) and sets of axes (s, d): the log ratio (s, n) of context to population, by Gaussians.
Base = Callable[[Float64Array, BoolArray], Float64Array]

# Up to this many axes Shapley values are exact; beyond it they average over PAIRS orders and their reverses.
EXACT_AXES, PAIRS = 8, 16
# Rows that are computed at a time, so that their kernels stay in the cache.
ROWS_AT_ONCE = 128


def odds_shares(points: Float64Array, kernel: Kernel, sample: Float64Array, base: Base) -> Float64Array:
    """Return Shapley values (n, d) of the log odds: their sum is the log odds, up to a constant of the context.

    A coalition's worth is the log odds with kernels, population and Gaussians restricted to its axes. The empty
    coalition gives the constant, and an axis that never matters gets nothing. Beyond EXACT_AXES axes the values are
    averages over 2 * PAIRS orders of the axes, always the same ones; the sum stays exact (Castro, Gomez & Tejada 2009).
    """
    d = points.shape[1]
    coalitions, weights = exact(d) if d <= EXACT_AXES else sampled(d)
    shares = np.empty(points.shape)
    for start in range(0, len(points), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        shares[rows] = worths(points[rows], kernel, sample, base, coalitions).T @ weights
    return shares


def worths(
    points: Float64Array, kernel: Kernel, sample: Float64Array, base: Base, coalitions: BoolArray
) -> Float64Array:
    """Return the log odds (s, n), up to their constant, by the axes of each of `coalitions` (s, d) alone."""
    rounded, both = np.round(points, DECIMALS), np.concatenate([kernel.points, np.round(sample, DECIMALS)])
    used = np.flatnonzero(np.isfinite(kernel.bandwidth))
    alone = np.where(np.eye(len(kernel.bandwidth), dtype=bool), kernel.bandwidth, np.inf)
    kernels = {axis: kernels_between(rounded, both, alone[axis]) for axis in used.tolist()}
    # Free axes have no kernel: coalitions that differ in free axes only have the same neighbours.
    sets, of = np.unique(coalitions[:, used], axis=0, return_inverse=True)
    near, density = np.empty((len(sets), len(points))), np.empty((len(sets), len(points)))
    nothing = np.ones((len(points), len(both)), dtype=np.float32)
    for places, product in _products(sets, np.arange(len(sets)), nothing, [kernels[axis] for axis in used.tolist()]):
        near[places] = product[:, : len(kernel.points)] @ kernel.weights
        density[places] = density_of(product[:, len(kernel.points) :])
    own, of = own_weights(own_places(rounded, kernel.points), kernel.weights), of.reshape(-1)
    by_base = weights_of_base(base(points, coalitions))
    return -np.log(ratios(near[of], density[of], by_base, own, kernel.weights.sum()))


def _products(
    sets: BoolArray, places: IndexArray, product: Float32Array, left: Sequence[Float32Array]
) -> Iterator[tuple[IndexArray, Float32Array]]:
    """Yield the places of `sets` (s, d) that agree on every axis, with the product of their axes' kernels.

    places   the rows of `sets` that are handled here; they agree on all axes before those of `left`
    product  (n, m)  of the kernels of those axes, which sets that begin alike share
    left     the kernels (n, m) of the axes after these

    This is no nested function: a recursive closure would hold all arrays until garbage is collected.
    """
    if not left:
        yield places, product
        return
    selected = sets[places, sets.shape[1] - len(left)]
    if not selected.all():
        yield from _products(sets, places[~selected], product, left[1:])
    if selected.any():
        yield from _products(sets, places[selected], product * left[0], left[1:])


def exact(d: int) -> tuple[BoolArray, Float64Array]:
    """Return all coalitions (2^d, d), and the weight (2^d, d) of each one's worth in each axis' value (Shapley
    1953).
    """
    coalitions = (np.arange(2**d)[:, None] >> np.arange(d)) & 1 == 1
    size = coalitions.sum(axis=1)
    with_axis = 1 / (d * np.array([comb(d - 1, max(k - 1, 0)) for k in range(d + 1)]))
    without = 1 / (d * np.array([comb(d - 1, min(k, d - 1)) for k in range(d + 1)]))
    return coalitions, np.where(coalitions, with_axis[size, None], -without[size, None])


def sampled(d: int) -> tuple[BoolArray, Float64Array]:
    """Return the coalitions that arise while axes come in one of 2 * PAIRS orders, and weights as `exact` does."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(d) for _ in range(PAIRS)]
    orders += [order[::-1] for order in orders]
    coalitions, weights = [], []
    for order in orders:
        coalitions.append(np.argsort(order) < np.arange(d + 1)[:, None])
        weight = np.zeros((d + 1, d))
        weight[np.arange(d), order] -= 1 / len(orders)
        weight[np.arange(1, d + 1), order] += 1 / len(orders)
        weights.append(weight)
    return np.concatenate(coalitions), np.concatenate(weights)
