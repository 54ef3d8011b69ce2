"""The nearest other images and the duplicates of a batch, against the formulas over all pairs."""

import time
import tracemalloc

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from service.core.explain.nearest import RADIUS, find_duplicates, find_nearest


def naive_nearest(points, count):
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, : min(count, len(points) - 1)]
    return order, np.take_along_axis(distances, order, axis=1)


def naive_duplicates(points, floor):
    labels = connected_components(cdist(points / np.sqrt(floor), points / np.sqrt(floor)) < RADIUS)[1]
    sets = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return sorted(members for members in sets if len(members) > 1)


def batches():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((300, 4))
    yield "all different", points
    yield "with copies", np.concatenate([points, points[:100], points[[7] * 40]])
    yield "all alike", np.ones((50, 4))
    yield "on a line", np.arange(200.0)[::-1, None]
    yield "on a grid", rng.integers(0, 4, (400, 3)).astype(float)
    yield "two", points[:2]


BATCHES = dict(batches())


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_nearest_are_those_over_all_pairs(name, count):
    points = BATCHES[name]
    nearest, distances = find_nearest(points, count)
    expected, expected_distances = naive_nearest(points, count)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-12)


@pytest.mark.parametrize(("n", "d", "count", "width"), [(1, 3, 5, 0), (0, 3, 5, 0), (4, 3, 0, 0), (4, 3, 9, 3)])
def test_there_are_no_more_neighbours_than_other_images(n, d, count, width):
    nearest, distances = find_nearest(np.random.default_rng(0).standard_normal((n, d)), count)
    assert nearest.shape == distances.shape == (n, width)


def test_without_live_latents_all_images_are_at_distance_0():
    nearest, distances = find_nearest(np.empty((3, 0)), 5)
    assert nearest.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert not distances.any()
    assert find_duplicates(np.empty((3, 0)), np.empty(0)) == []


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0, 3.0])
def test_duplicates_are_the_connected_components(spread):
    rng = np.random.default_rng(1)
    centres = 20 * rng.standard_normal((12, 3))
    points = (centres[:, None] + spread * rng.standard_normal((12, 40, 3))).reshape(-1, 3)
    points = np.concatenate([points, points[::9]])[rng.permutation(534)]
    floor = np.array([0.5, 1.0, 2.0])
    assert [members.tolist() for members in find_duplicates(points, floor)] == naive_duplicates(points, floor)


def test_a_chain_of_crowds_is_one_set():
    """Every point has more near ones than are looked at first, and the crowds touch in one pair of points each."""
    rng = np.random.default_rng(2)
    crowds = [[0.9 * place, 0] + 0.01 * rng.standard_normal((30, 2)) for place in range(20)]
    points = np.concatenate(crowds)
    assert [len(members) for members in find_duplicates(points, np.ones(2))] == [600]
    assert find_duplicates(10 * points[::30], np.ones(2)) == []


def test_duplicates_come_in_the_order_of_their_first_images():
    points = np.array([[5.0], [1.0], [9.0], [1.0], [5.0001], [9.0], [3.0], [1.0]])
    assert [members.tolist() for members in find_duplicates(points, np.full(1, 1e-4))] == [[0, 4], [1, 3, 7], [2, 5]]


def test_an_encoder_without_noise_still_finds_copies():
    points = np.array([[1.0, 2.0], [1.0, 2.0], [1.1, 2.0]])
    assert [members.tolist() for members in find_duplicates(points, np.zeros(2))] == [[0, 1]]


def test_the_results_do_not_depend_on_the_order_of_the_images():
    points = BATCHES["with copies"]
    order = np.random.default_rng(3).permutation(len(points))
    _, distances = find_nearest(points, 4)
    _, permuted = find_nearest(points[order], 4)
    np.testing.assert_array_equal(permuted, distances[order])
    sets = {frozenset(order[members].tolist()) for members in find_duplicates(points[order], np.full(4, 0.01))}
    assert sets == {frozenset(members.tolist()) for members in find_duplicates(points, np.full(4, 0.01))}


@pytest.mark.parametrize("spread", [0.0, 0.2, 5.0])
def test_memory_and_time_do_not_grow_with_the_pairs(spread):
    points = spread * np.random.default_rng(4).standard_normal((20_000, 3))
    started = time.perf_counter()
    tracemalloc.start()
    try:
        find_nearest(points, 10)
        find_duplicates(points, np.ones(3))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20  # the pairs would be 3 GiB
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize("name", BATCHES)
def test_some_of_the_points_have_the_neighbours_that_they_have_among_all(name):
    points = BATCHES[name]
    rows = np.random.default_rng(1).choice(len(points), min(len(points), 17), replace=False)
    nearest, distances = find_nearest(points, 3, rows)
    of_all, distances_of_all = find_nearest(points, 3)
    np.testing.assert_array_equal(nearest, of_all[rows])
    np.testing.assert_allclose(distances, distances_of_all[rows], rtol=1e-12)
    assert find_nearest(points, 3, np.empty(0, np.intp))[0].shape == (0, of_all.shape[1])
