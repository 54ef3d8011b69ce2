"""The identities of scoring.md section 4, on Gaussians of any shape."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.explain.minimal_sets import repair_deviations, smallest_sets
from service.core.explain.shapley_gaussian import conditional_z, marginal_z, shapley, shapley_interactions, shapley_odds

N = 5


@st.composite
def departures(draw, most=8):
    """Points (N, d) and two fits: correlated, of very different spreads, some coordinates exactly central."""
    d = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def fit():
        root = rng.standard_normal((d, 2 * d + 1))
        unit = 10 ** rng.uniform(-1.5, 1.5, d)
        return Fit(rng.standard_normal(d), (root @ root.T / d + 0.05 * np.eye(d)) * np.outer(unit, unit))

    context, background = fit(), fit()
    delta = rng.standard_normal((N, d)) * np.sqrt(np.diag(context.covariance)) * draw(st.floats(0.1, 10))
    delta[rng.random((N, d)) < draw(st.sampled_from([0.0, 0.3]))] = 0
    return context.location + delta, context, background


def distance(points, fit):
    return mahalanobis_squared(points, fit.location, fit.covariance)


def same(actual, expected, scale):
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-9 * scale)


def naive_shapley(worth, players):
    """Shapley's formula over all coalitions; `worth` maps a frozenset of players to a number."""
    d = len(players)
    values = np.zeros(d)
    for k in players:
        others = [player for player in players if player != k]
        for size in range(d):
            weight = 1 / (d * comb(d - 1, size))
            for coalition in map(frozenset, combinations(others, size)):
                values[k] += weight * (worth[coalition | {k}] - worth[coalition])
    return values


def worths(point, fit):
    """D2 of `point` with every coordinate outside the coalition at the location, for all 2^d coalitions."""
    d = len(point)
    distances = {}
    for size in range(d + 1):
        for coalition in map(frozenset, combinations(range(d), size)):
            inside = np.isin(np.arange(d), list(coalition))
            distances[coalition] = distance(np.where(inside, point, fit.location)[None], fit)[0]
    return distances


@settings(deadline=None, max_examples=60)
@given(departures(most=12))
def test_shares_sum_to_the_squared_distance(case):
    points, fit, _ = case
    np.testing.assert_allclose(shapley(points, fit).sum(axis=1), distance(points, fit), rtol=1e-10)


@settings(deadline=None, max_examples=12)
@given(departures())
def test_shares_are_shapleys(case):
    points, fit, _ = case
    worth = worths(points[0], fit)
    naive = naive_shapley(worth, range(points.shape[1]))
    scale = max(worth.values()) + 1e-300
    np.testing.assert_allclose(shapley(points[:1], fit)[0], naive, rtol=1e-8, atol=1e-10 * scale)


@settings(deadline=None, max_examples=8)
@given(departures(most=6))
def test_odds_shares_are_the_shapley_values_of_the_log_odds(case):
    # Each distance has its own centre for the coordinates outside the coalition: two games, and the value is linear.
    points, fit, background = case
    ours, theirs = worths(points[0], fit), worths(points[0], background)
    odds = {coalition: 0.5 * (ours[coalition] - theirs[coalition]) for coalition in ours}
    naive = naive_shapley(odds, range(points.shape[1]))
    scale = max(*ours.values(), *theirs.values()) + 1e-300
    shares = shapley_odds(points[:1], fit, background)[0]
    np.testing.assert_allclose(shares, naive, rtol=1e-8, atol=1e-10 * scale)
    expected = 0.5 * (distance(points[:1], fit) - distance(points[:1], background))[0]
    assert shares.sum() == pytest.approx(expected, rel=1e-9, abs=1e-10 * scale)


@settings(deadline=None, max_examples=40)
@given(departures())
def test_a_coordinate_at_the_centre_has_no_share(case):
    points, fit, _ = case
    points[:, 0] = fit.location[0]
    assert (shapley(points, fit)[:, 0] == 0).all()
    assert (marginal_z(points, fit)[:, 0] == 0).all()
    assert (shapley_interactions(points, fit)[:, 0] == 0).all()


@settings(deadline=None, max_examples=40)
@given(departures(), st.integers(0, 1000))
def test_nothing_depends_on_the_units_or_the_order_of_the_axes(case, seed):
    points, fit, background = case
    d = points.shape[1]
    rng = np.random.default_rng(seed)
    unit, turn = 10 ** rng.uniform(-3, 3, d), rng.permutation(d)
    repaired = rng.random(points.shape) < 0.5

    def moved(fit):
        scaled = fit.covariance * np.outer(unit, unit)
        return Fit((fit.location * unit)[turn], scaled[np.ix_(turn, turn)])

    def by_row(points, fit):
        return shapley_interactions(points, fit).sum(axis=2)

    moved_points = (points * unit)[:, turn]
    for terms in (shapley, conditional_z, marginal_z, by_row):
        plain = terms(points, fit)
        same(terms(moved_points, moved(fit)), plain[:, turn], np.abs(plain).max())
    plain = repair_deviations(points, fit, repaired)
    same(repair_deviations(moved_points, moved(fit), repaired[:, turn]), plain[:, turn], np.abs(plain).max())
    plain = shapley_odds(points, fit, background)
    scale = (distance(points, fit) + distance(points, background)).max()
    same(shapley_odds(moved_points, moved(fit), moved(background)), plain[:, turn], scale)


@settings(deadline=None, max_examples=40)
@given(departures())
def test_interactions_share_out_what_the_shares_do(case):
    points, fit, _ = case
    pairs, shares = shapley_interactions(points, fit), shapley(points, fit)
    scale = np.abs(pairs).max() + 1e-300
    np.testing.assert_allclose(pairs.sum(axis=2), shares, rtol=1e-9, atol=1e-11 * scale)
    np.testing.assert_allclose(pairs.sum(axis=(1, 2)), distance(points, fit), rtol=1e-9, atol=1e-11 * scale)
    np.testing.assert_allclose(pairs, pairs.transpose(0, 2, 1), rtol=1e-9, atol=1e-11 * scale)
    precision = np.linalg.inv(fit.covariance)
    delta = points - fit.location
    own = np.einsum("nkk->nk", pairs)
    np.testing.assert_allclose(own, 2 * delta**2 * np.diag(precision) - shares, rtol=1e-6, atol=1e-8 * scale)


@settings(deadline=None, max_examples=40)
@given(departures(most=6), st.floats(0.2, 20))
def test_no_smaller_set_would_do_and_the_set_does(case, radius_squared):
    points, fit, _ = case
    precision = np.linalg.inv(fit.covariance)
    gradient = (points - fit.location) @ precision
    d = points.shape[1]

    def left(row, dims):
        """D2 once `dims` are repaired: it falls by g_S' Omega_SS^-1 g_S."""
        dims = list(dims)
        g = gradient[row, dims]
        return distance(points[[row]], fit)[0] - g @ np.linalg.solve(precision[np.ix_(dims, dims)], g)

    sets = smallest_sets(points, fit, radius_squared, lambda points: distance(points, fit) <= radius_squared)
    for row, in_set in enumerate(sets):
        dims = np.flatnonzero(in_set)
        slack = 1e-6 * distance(points[[row]], fit)[0] + 1e-6 * radius_squared
        if len(dims) < d:
            assert left(row, dims) <= radius_squared + slack
            assert all(left(row, dims) <= left(row, rival) + slack for rival in combinations(range(d), len(dims)))
        if len(dims):
            assert all(left(row, rival) > radius_squared - slack for rival in combinations(range(d), len(dims) - 1))
