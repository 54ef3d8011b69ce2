"""The images of a batch that are nearest to each other, and those that are duplicates.

Both searches go through k-d trees of the distinct points: their memory grows with the number of images, and not with
the number of pairs. The functions import scipy.spatial and scipy.sparse, which most requests need not: they take 20
MiB.
"""

from __future__ import annotations

import numpy as np

from service.core.types import Float64Array, IndexArray

# Duplicates are closer than this, in standard deviations of the noise floor. Measured with the shapes3d bundle: noise
# of one grey level moves an image by at most 0.8 of them, and one step of one factor by at least 6.5.
RADIUS = 1.0
# The noise is at least so many population standard deviations: float32 is no more exact.
SMALLEST_NOISE = 1e-6
# Neighbours of a point that are looked at before its crowd is searched part by part.
FIRST_NEIGHBOURS = 8
# Images whose candidates are ordered at a time.
ROWS_AT_ONCE = 1024


def find_nearest(points: Float64Array, count: int, of: IndexArray | None = None) -> tuple[IndexArray, Float64Array]:
    """Return the nearest other points of points (n, d), and their distances: (n, m) each, m = min(count, n - 1).

    With `of` (k,) only for those of the points, (k, m) each. Distances are Euclidean and rise along each row. Of points
    at equal distances the first ones come first.
    """
    n, count = len(points), max(min(count, len(points) - 1), 0)
    of = np.arange(n) if of is None else of
    from scipy.spatial import KDTree

    if count == 0 or len(of) == 0:
        return np.empty((len(of), count), dtype=np.intp), np.empty((len(of), count))
    if points.shape[1] == 0:
        points = np.zeros((n, 1))
    distinct, place = _distinct(points)
    copies = _first_copies(place, len(distinct), count + 1)
    tree = KDTree(distinct)
    # The point itself, `count` others, and one more that tells whether the last of them is tied.
    searched = min(count + 2, len(distinct))
    asked, query = np.unique(place[of], return_inverse=True)  # of several copies only one is looked up
    to_distinct, neighbours = tree.query(distinct[asked], k=np.arange(1, searched + 1))
    nearest, distances = np.empty((len(of), count), dtype=np.intp), np.empty((len(of), count))
    for start in range(0, len(of), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        rows, found = of[part], query[part]
        candidates = copies[neighbours[found]]
        apart = np.broadcast_to(to_distinct[found][:, :, None], candidates.shape).reshape(len(rows), -1)
        candidates = candidates.reshape(len(rows), -1)
        apart = np.where((candidates == n) | (candidates == rows[:, None]), np.inf, apart)
        order = np.lexsort((candidates, apart), axis=-1)[:, :count]
        nearest[part] = np.take_along_axis(candidates, order, axis=1)
        distances[part] = np.take_along_axis(apart, order, axis=1)
    if searched < len(distinct):
        tied = to_distinct[:, -1] <= to_distinct[:, -2]
        for at in np.flatnonzero(tied[query]):
            # The tree took any of those that are tied: look at all of them.
            row, radius = of[at], to_distinct[query[at], -1] * (1 + 1e-12)
            candidates = copies[tree.query_ball_point(points[row], radius)].ravel()
            candidates = candidates[(candidates < n) & (candidates != row)]
            apart = np.sqrt(np.square(points[candidates] - points[row]).sum(axis=1))
            order = np.lexsort((candidates, apart))[:count]
            nearest[at], distances[at] = candidates[order], apart[order]
    return nearest, distances


def find_duplicates(points: Float64Array, floor: Float64Array) -> list[IndexArray]:
    """Return the sets of points (n, d) that are duplicates of each other: rows, rising; the set of the first row first.

    floor (d,) is the encoder's noise, as a variance. Two points are duplicates where their distance, each axis in the
    noise's standard deviations, is below RADIUS; duplicates of duplicates are in one set.
    """
    if len(points) < 2 or points.shape[1] == 0:
        return []
    distinct, place = _distinct(points / np.maximum(np.sqrt(floor), SMALLEST_NOISE))
    labels = _connect(distinct)[place]
    rows = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(labels[rows], kind="stable")]
    sets = np.split(rows, np.flatnonzero(np.diff(labels[rows])) + 1)
    return sorted(sets, key=lambda members: int(members[0]))


def _distinct(points: Float64Array) -> tuple[Float64Array, IndexArray]:
    """Return the distinct ones of points (n, d), sorted, and for each point its row among them (n,)."""
    distinct, place = np.unique(points, axis=0, return_inverse=True)
    return distinct, place.reshape(-1)


def _first_copies(place: IndexArray, size: int, most: int) -> IndexArray:
    """Return for each of `size` distinct points the first `most` rows that hold it, rising (size, c).

    place (n,) is the distinct point of each row. Points with fewer rows are filled up with n.
    """
    counts = np.bincount(place, minlength=size)
    columns = np.arange(min(most, int(counts.max())))
    order = np.argsort(place, kind="stable")
    starts = np.cumsum(counts) - counts
    rows = order[np.minimum(starts[:, None] + columns, len(place) - 1)]
    return np.asarray(np.where(columns < counts[:, None], rows, len(place)))


def _connect(points: Float64Array) -> IndexArray:
    """Return the connected component (n,) of each of the distinct points (n, d), with edges shorter than RADIUS.

    A point with fewer than FIRST_NEIGHBOURS of them is done at once. The others are joined as in Boruvka's algorithm:
    two components differ in a bit of their numbers, so that for every bit the points without it look for the nearest
    one with it. A crowd of m points has m^2 edges, and none of them is stored.
    """
    from scipy.spatial import KDTree

    searched = min(FIRST_NEIGHBOURS, len(points))
    columns = np.arange(1, searched + 1)
    _, neighbours = KDTree(points).query(points, k=columns, distance_upper_bound=RADIUS)
    near = neighbours < len(points)  # the tree fills up with n
    labels = _join(np.arange(len(points)), np.nonzero(near)[0], neighbours[near])
    crowded = np.flatnonzero(near[:, -1])
    while True:
        components, number = np.unique(labels[crowded], return_inverse=True)
        ones: list[IndexArray] = []
        others: list[IndexArray] = []
        for bit in range(max(len(components) - 1, 0).bit_length()):
            has_bit = (number >> bit) & 1 == 1
            for searching, target in ((crowded[has_bit], crowded[~has_bit]), (crowded[~has_bit], crowded[has_bit])):
                _, row = KDTree(points[target]).query(points[searching], distance_upper_bound=RADIUS)
                ones.append(searching[row < len(target)])
                others.append(target[row[row < len(target)]])
        if not any(map(len, ones)):
            return labels
        labels = _join(labels, np.concatenate(ones), np.concatenate(others))


def _join(labels: IndexArray, ones: IndexArray, others: IndexArray) -> IndexArray:
    """Return labels (n,) of components once the points `ones` (e,) and `others` (e,) are connected."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = int(labels.max()) + 1
    graph = coo_matrix((np.ones(len(ones), dtype=np.int8), (labels[ones], labels[others])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][labels], dtype=np.intp)
