"""The smallest sets of latents to repair, beside naive searches, and the deviations of a repair."""

from itertools import combinations

import numpy as np
import pytest
from gaussian_fits import as_tuples, fit_of, points_about, repair

from service.core.detect import posterior
from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.explain.minimal_sets import minimal_sets, repair_deviations, smallest_sets
from service.core.explain.shapley_gaussian import conditional_z, marginal_z

LIVE = [1, 2, 4, 5]


def within(fit, radius_squared):
    return lambda points: mahalanobis_squared(points, fit.location, fit.covariance) <= radius_squared


def naive_smallest_set(point, fit, inside):
    d = len(point)
    for size in range(d + 1):
        repaired = {dims: repair(point, dims, fit) for dims in combinations(range(d), size)}
        working = {dims: y for dims, y in repaired.items() if inside(y[None])[0]}
        if working:
            return min(working, key=lambda dims: mahalanobis_squared(working[dims][None], *vars_of(fit))[0])
    return tuple(range(d))


def naive_grown_set(point, fit, inside):
    dims = ()
    while not inside(repair(point, dims, fit)[None])[0] and len(dims) < len(point):
        rest = [k for k in range(len(point)) if k not in dims]
        repaired = {k: repair(point, (*dims, k), fit) for k in rest}
        best = min(rest, key=lambda k: mahalanobis_squared(repaired[k][None], *vars_of(fit))[0])
        dims = (*dims, best)
    return tuple(sorted(dims))


def vars_of(fit):
    return fit.location, fit.covariance


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("radius_squared", [1.0, 6.0])
def test_exact_sets_are_those_of_the_naive_search(d, radius_squared):
    fit = fit_of(d, seed=d)
    points = points_about(fit, 30, seed=d)
    inside = within(fit, radius_squared)
    sets = as_tuples(smallest_sets(points, fit, radius_squared, inside))
    assert sets == [naive_smallest_set(point, fit, inside) for point in points]
    assert len({len(dims) for dims in sets}) > 1


def test_exact_sets_obey_a_test_that_the_distance_does_not_tell():
    fit = fit_of(4, seed=9)
    points = points_about(fit, 40, seed=9)
    near = within(fit, 5.0)

    def inside(points):
        return near(points) & (points[:, 0] <= fit.location[0])

    sets = as_tuples(smallest_sets(points, fit, 5.0, inside))
    assert sets == [naive_smallest_set(point, fit, inside) for point in points]
    assert sets != as_tuples(smallest_sets(points, fit, 5.0, near))


def test_sets_grow_by_the_dim_that_lowers_the_distance_most(monkeypatch):
    fit = fit_of(6, seed=3)
    points = points_about(fit, 25, seed=3)
    inside = within(fit, 3.0)
    exact = smallest_sets(points, fit, 3.0, inside)
    monkeypatch.setattr("service.core.explain.minimal_sets.EXACT_DIMS", 0)
    grown = smallest_sets(points, fit, 3.0, inside)
    assert as_tuples(grown) == [naive_grown_set(point, fit, inside) for point in points]
    assert (grown.sum(axis=1) >= exact.sum(axis=1)).all()


def test_sets_do_not_depend_on_how_many_images_are_searched_at_a_time(monkeypatch):
    fit = fit_of(4, seed=4)
    points = points_about(fit, 50, seed=4)
    together = smallest_sets(points, fit, 2.0, within(fit, 2.0))
    monkeypatch.setattr("service.core.explain.minimal_sets.ROWS_AT_ONCE", 3)
    np.testing.assert_array_equal(smallest_sets(points, fit, 2.0, within(fit, 2.0)), together)


@pytest.mark.parametrize("d", [3, 13])
def test_where_nothing_helps_all_dims_are_needed(d):
    fit = fit_of(d, seed=5)
    points = points_about(fit, 4, seed=5)
    assert smallest_sets(points, fit, 1.0, lambda points: np.zeros(len(points), dtype=bool)).all()


def test_more_dims_than_can_be_searched_exactly_still_find_the_one_that_is_off():
    fit = Fit(np.zeros(20), 0.7 * np.eye(20) + 0.3)
    points = np.random.default_rng(6).multivariate_normal(fit.location, fit.covariance, 10)
    points[:, 7] += 12
    radius_squared = 45.0
    sets = smallest_sets(points, fit, radius_squared, within(fit, radius_squared))
    np.testing.assert_array_equal(sets, np.tile(np.arange(20) == 7, (10, 1)))


def test_deviations_of_a_repair_are_those_from_the_conditional_gaussian():
    fit = fit_of(5, seed=8)
    points = points_about(fit, 6, seed=8)
    repaired = np.random.default_rng(8).random((6, 5)) < 0.5
    repaired[0], repaired[1], repaired[2] = False, True, np.arange(5) == 3
    deviations = repair_deviations(points, fit, repaired)
    for z, point, in_set in zip(deviations, points, repaired, strict=True):
        dims, rest = np.flatnonzero(in_set), np.flatnonzero(~in_set)
        across = fit.covariance[np.ix_(dims, rest)]
        left = fit.covariance[np.ix_(dims, dims)]
        left = left - across @ np.linalg.inv(fit.covariance[np.ix_(rest, rest)]) @ across.T
        expected = (point - repair(point, dims, fit))[dims] / np.sqrt(np.diag(left))
        np.testing.assert_allclose(z[dims], expected, rtol=1e-9)
        assert (z[rest] == 0).all()
    np.testing.assert_allclose(deviations[1], marginal_z(points, fit)[1], rtol=1e-9)
    np.testing.assert_allclose(deviations[2, 3], conditional_z(points, fit)[2, 3], rtol=1e-9)


def test_images_inside_need_no_repair_and_the_repaired_are_inside(batch, population):
    latents, scores = batch
    sets = minimal_sets(latents, scores.context, population)
    inside = posterior.inside(latents, scores.context, population)
    np.testing.assert_array_equal(sets.any(axis=1), ~inside)
    location, covariance = scores.context.location, scores.context.covariance
    for row in np.flatnonzero(~inside):
        live = latents[row, 0, LIVE].astype(np.float64)
        mean = latents[row, 0].astype(np.float64)
        fit = Fit(location[LIVE], covariance[np.ix_(LIVE, LIVE)])
        mean[LIVE] = repair(live, np.flatnonzero(sets[row, LIVE]), fit)
        assert posterior.inside(mean[None], scores.context, population)[0]
