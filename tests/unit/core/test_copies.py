"""Copies of an image count once, unless they are most of the batch."""

import numpy as np
from numpy.testing import assert_array_equal

from service.core.detect.standardize import FEWEST_DISTINCT, distinct_rows


def by_unique(points):
    _, first, counts = np.unique(np.round(points, 3), axis=0, return_index=True, return_counts=True)
    if counts.max(initial=0) > len(points) / 2 or len(first) < FEWEST_DISTINCT:
        return points
    return points[np.sort(first)]


def test_copies_are_left_out_as_numpy_finds_them():
    random = np.random.default_rng(0)
    for n in (0, 1, 2, 3, 8, 40):
        for values in (1, 2, 3, 8):
            points = random.integers(0, values, (n, 2)) - random.choice([0.0, 1e-5, -1e-5], (n, 2))
            assert_array_equal(points[distinct_rows(points)], by_unique(points))
    assert len(distinct_rows(np.array([[0.0], [-0.0], [1.0], [2.0], [3.0]]))) == 4
