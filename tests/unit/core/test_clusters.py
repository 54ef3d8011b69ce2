"""Clusters, and centres and spreads that a few outliers do not change."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, ward

from service.core.decide.clusters import cluster, core, describe, part_axes, part_known_axes, running_sums


@pytest.mark.parametrize("n", [10, 25, 120])
def test_clusters_are_those_of_scipy(n):
    points = np.random.default_rng(n).standard_normal((n, 4))
    tree = ward(points)
    for count, clusters in enumerate(cluster(points, 8), 2):
        labels = fcluster(tree, count, "maxclust")
        expected = [points[labels == label] for label in range(1, count + 1)]
        assert len(clusters) == count
        assert sorted(map(_sorted, clusters.values())) == sorted(map(_sorted, expected))


def _sorted(points):
    return sorted(map(tuple, points))


def test_a_few_outliers_change_neither_centre_nor_variance():
    random = np.random.default_rng(1)
    points = 0.1 * random.standard_normal((400, 3)) + [0.0, 1.0, -2.0]
    points[:20] += random.choice([-1, 1], (20, 3)) * 5
    centre, variance = describe(points)
    np.testing.assert_allclose(centre, [0, 1, -2], atol=0.02)
    np.testing.assert_allclose(variance, 0.01, rtol=0.25)


def test_without_outliers_the_variance_is_no_larger_than_the_plain_one():
    for draw in (np.random.default_rng(2).uniform, np.random.default_rng(3).standard_normal):
        points = draw(size=(60, 2))
        assert (describe(points)[1] <= points.var(axis=0, ddof=1) * (1 + 1e-9)).all()


def test_each_axis_may_have_its_own_part():
    ordered = np.sort(np.random.default_rng(4).standard_normal((50, 2)), axis=0)
    start, stop = np.array([0, 30]), np.array([20, 50])
    centre, variance = core(running_sums(ordered), start, stop)
    for axis in range(2):
        alone = describe(ordered[start[axis] : stop[axis], [axis]])
        np.testing.assert_allclose((centre[axis], variance[axis]), np.ravel(alone))


def test_an_axis_is_cut_where_its_parts_vary_least():
    points = np.random.default_rng(0).normal(size=(30, 2))
    points[:12] += 20
    apart, variance, parts, centres = part_axes(points, 6)
    assert (parts == (np.arange(30) >= 12)[:, None]).all()
    np.testing.assert_allclose(centres[1] - centres[0], np.sqrt(apart))
    assert np.array_equal(part_known_axes(points.tobytes(), points.shape, 6), [apart, variance])
