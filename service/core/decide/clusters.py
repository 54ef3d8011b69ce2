"""Clusters of a batch's images, and centres and spreads that a few outliers among them do not change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from service.core.types import Float64Array, IndexArray

# Outliers among the images of a kind count neither for its centre nor for its spread, if so many at each end of an axis
# hold them. The rest of a Gaussian's draws has this part of their variance.
TRIMMED, VARIANCE_WITHIN = 0.075, 0.52


def cluster(points: Float64Array, most: int) -> Iterator[dict[int, Float64Array]]:
    """Yield two, three, ... up to `most` clusters of points (n, d), n > `most`, by the nodes of Ward's (1963) tree."""
    from scipy.cluster.hierarchy import leaves_list, ward  # takes time to import, and small batches do not need it

    tree, n = ward(points), len(points)
    leaves = leaves_list(tree)
    # A node's points are neighbours among the leaves, those of its left child first.
    spans = {2 * n - 2: (0, n)}
    for row in range(n - 2, n - 1 - most, -1):
        start, stop = spans.pop(n + row)
        left, right = tree[row, :2].astype(int)
        middle = start + (1 if left < n else int(tree[left - n, 3]))
        spans |= {left: (start, middle), right: (middle, stop)}
        yield {node: points[leaves[first:last]] for node, (first, last) in spans.items()}


def describe(points: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the centre and the variance (d,) of points (n, d), of which a few may be outliers."""
    ordered = np.sort(points, axis=0)
    none = np.zeros(ordered.shape[1], dtype=np.intp)
    return core(running_sums(ordered), none, none + len(ordered))


def core(sums: Float64Array, start: IndexArray, stop: IndexArray) -> tuple[Float64Array, Float64Array]:
    """Return the centre and the variance (d,) of the images of a kind, from `start` up to `stop` (d,) of rising places.

    sums (2, n + 1, d) by `running_sums`. Few outliers change neither: where they widen the kind, those within count.
    """
    size = stop - start
    beyond = (TRIMMED * size).astype(np.intp)
    means, scatters = sums_between(sums, np.stack([start, start + beyond]), np.stack([stop, stop - beyond]))
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
    total, squares = np.take_along_axis(sums, stop[None], axis=1) - np.take_along_axis(sums, start[None], axis=1)
    mean = total / (stop - start)
    return mean, np.maximum(squares - total * mean, 0.0)
