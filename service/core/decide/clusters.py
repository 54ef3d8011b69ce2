"""Clusters of a batch's images, and centres and spreads that a few outliers among them do not change."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from service.core.types import BoolArray, Float64Array, IndexArray

# Outliers among the images of a kind count neither for its centre nor for its spread, if so many at each end of an axis
# hold them. The rest of a Gaussian's draws has this part of their variance.
TRIMMED, VARIANCE_WITHIN = 0.075, 0.52
NOT_AND_TRIMMED = np.array([[0], [1]])


def cluster(points: Float64Array, most: int) -> Iterator[dict[int, Float64Array]]:
    """Yield two, three, ... up to `most` clusters of points (n, d), n > `most`, by the nodes of Ward's (1963) tree."""
    from scipy.cluster.hierarchy import ward  # takes time to import, and small batches do not need it

    n = len(points)
    children, sizes = np.split(ward(points)[:, [0, 1, 3]].astype(np.intp), [2], axis=1)
    children, sizes = children.tolist(), [1] * n + sizes[:, 0].tolist()
    # A node's points are neighbours among the leaves, those of its left child first.
    first = [0] * (2 * n - 1)
    for row in range(n - 2, -1, -1):
        left, right = children[row]
        first[left] = first[n + row]
        first[right] = first[left] + sizes[left]
    ordered = points[np.argsort(first[:n])]
    nodes = [2 * n - 2]
    for row in range(n - 2, n - 1 - most, -1):
        nodes.remove(n + row)
        nodes += children[row]
        yield {node: ordered[first[node] : first[node] + sizes[node]] for node in nodes}


def describe(points: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the centre and the variance (d,) of points (n, d), of which a few may be outliers."""
    beyond = int(TRIMMED * len(points))
    centre, variance = _measure(points)
    if not beyond:
        return centre, variance
    centre_within, within = _measure(np.sort(points, axis=0)[beyond:-beyond])
    narrower = within < VARIANCE_WITHIN * variance
    return np.where(narrower, centre_within, centre), np.where(narrower, within / VARIANCE_WITHIN, variance)


def _measure(points: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the mean and the sample variance (d,) of points (n, d), n >= 2."""
    mean = points.sum(axis=0) / len(points)
    return mean, np.square(points - mean).sum(axis=0) / (len(points) - 1)


def core(sums: Float64Array, start: IndexArray, stop: IndexArray) -> tuple[Float64Array, Float64Array]:
    """Return the centre and the variance (d,) of the images of a kind, from `start` up to `stop` (d,) of rising places.

    sums (2, n + 1, d) by `running_sums`. Few outliers change neither: where they widen the kind, those within count.
    """
    size = stop - start
    beyond = (TRIMMED * size).astype(np.intp)
    trimmed = NOT_AND_TRIMMED * beyond
    means, scatters = sums_between(sums, start + trimmed, stop - trimmed)
    variance, within = scatters[0] / (size - 1), scatters[1] / (size - 2 * beyond - 1) / VARIANCE_WITHIN
    narrower = within < variance
    return np.where(narrower, means[1], means[0]), np.where(narrower, within, variance)


def running_sums(ordered: Float64Array) -> Float64Array:
    """Return the sums of the first 0, 1, ... of the places (n, d), and of their squares, (2, n + 1, d)."""
    sums = np.zeros((2, len(ordered) + 1, ordered.shape[1]))
    np.cumsum([ordered, np.square(ordered)], axis=1, out=sums[:, 1:])
    return sums


def sums_between(sums: Float64Array, start: IndexArray, stop: IndexArray) -> tuple[Float64Array, Float64Array]:
    """Return the mean and the scatter (k, d) of the images from `start` up to `stop` (k, d), by `running_sums`."""
    axes = np.arange(sums.shape[2])
    total, squares = sums[:, stop, axes] - sums[:, start, axes]
    mean = total / (stop - start)
    return mean, np.maximum(squares - total * mean, 0.0)


def part_axes(points: Float64Array, fewest: int) -> tuple[Float64Array, Float64Array, BoolArray, Float64Array]:
    """Return, of the two parts of each axis that vary least, the squared distance (d,), the larger of their variances
    (d,), which points (n, d) are below, and the centres (2, d). Each part has at least `fewest` points.
    """
    n, d = points.shape
    ordered = np.sort(points, axis=0)
    sums = running_sums(ordered)
    last = np.arange(n - 1)[:, None]
    within = sums_between(sums, 0 * last, last + 1)[1] + sums_between(sums, last + 1, 0 * last + n)[1]
    within[: fewest - 1] = within[n - fewest :] = np.inf
    cut = within.argmin(axis=0)
    low, high = (core(sums, start, stop) for start, stop in ((0 * cut, cut + 1), (cut + 1, 0 * cut + n)))
    parts, centres = points <= ordered[cut, np.arange(d)], np.stack([low[0], high[0]])
    return np.square(high[0] - low[0]), np.maximum(low[1], high[1]), parts, centres


@lru_cache(maxsize=8)
def part_known_axes(points: bytes, shape: tuple[int, int], fewest: int) -> tuple[Float64Array, Float64Array]:
    """Return the squared distances and the variances (d,) of `part_axes`, of points that come again and again: float64.

    Every batch is compared with the same points of the population.
    """
    apart, variance, _, _ = part_axes(np.frombuffer(points).reshape(shape), fewest)
    return apart, variance
