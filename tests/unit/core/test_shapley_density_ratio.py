"""Shares of a density ratio's log odds: the Shapley values of the game that its axes play."""

from itertools import permutations

import numpy as np
import pytest

from service.core.detect.density_ratio import fit_kernel, log_ratios
from service.core.explain.shapley_density_ratio import EXACT_AXES, exact, odds_shares, sampled, worths

D = 4


def fitted(d=D, n=150, seed=0):
    """A context whose first two axes are narrow, one clump and two; the others are free. Outliers differ in either."""
    rng = np.random.default_rng(seed)
    sample = rng.standard_normal((500, d))
    points = rng.standard_normal((n, d))
    points[:, 0] = 0.5 + 0.02 * rng.standard_normal(n)
    points[:, 1] = rng.choice([-1, 1], n) + 0.02 * rng.standard_normal(n)
    points[:3, 0] += [1.0, -1.2, 0.6]
    points[3:6, 1] = [0.0, 0.4, -0.3]
    kernel = fit_kernel(points, np.full(d, 0.05), sample, np.zeros(n))
    assert np.isfinite(kernel.bandwidth[:2]).all()
    return points, kernel, sample


def base(points, axes):
    """Gaussians that differ on every axis, (s, n)."""
    return axes.astype(float) @ (0.3 * (1 - np.square(points - 0.4))).T


def everything(points, d=D):
    return base(points, np.ones((1, d), dtype=bool))[0]


def test_shares_sum_to_the_log_odds_but_for_the_constant():
    points, kernel, sample = fitted()
    shares = odds_shares(points, kernel, sample, base)
    odds = -log_ratios(points, kernel, sample, everything(points))
    np.testing.assert_allclose(shares.sum(axis=1), odds, atol=1e-4)


def test_shares_are_those_of_the_definition():
    points, kernel, sample = fitted()
    points = points[:8]
    expected = np.zeros((len(points), D))
    orders = list(permutations(range(D)))
    for order in orders:
        for place, axis in enumerate(order):
            coalition = np.isin(np.arange(D), order[:place])
            joined = coalition | (np.arange(D) == axis)
            before, after = worths(points, kernel, sample, base, np.array([coalition, joined]))
            expected[:, axis] += (after - before) / len(orders)
    np.testing.assert_allclose(odds_shares(points, kernel, sample, base), expected, atol=1e-5)


def test_what_differs_is_what_counts():
    points, kernel, sample = fitted()
    shares = odds_shares(points[:6], kernel, sample, lambda points, axes: np.zeros((len(axes), len(points))))
    np.testing.assert_array_equal(shares.argmax(axis=1), [0, 0, 0, 1, 1, 1])
    free = ~np.isfinite(kernel.bandwidth)
    assert free.any()
    np.testing.assert_allclose(shares[:, free], 0, atol=1e-12)


def test_images_are_explained_alike_in_any_company(monkeypatch):
    points, kernel, sample = fitted()
    together = odds_shares(points, kernel, sample, base)
    monkeypatch.setattr("service.core.explain.shapley_density_ratio.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(odds_shares(points[::-1], kernel, sample, base)[::-1], together, atol=1e-6)


@pytest.mark.parametrize("d", [1, 3, EXACT_AXES])
def test_exact_weights_are_a_share_of_the_difference_between_all_and_none(d):
    coalitions, weights = exact(d)
    assert len(np.unique(coalitions, axis=0)) == len(coalitions) == 2**d
    every, none = coalitions.all(axis=1), ~coalitions.any(axis=1)
    np.testing.assert_allclose(weights.sum(axis=1)[~(every | none)], 0, atol=1e-12)
    np.testing.assert_allclose([weights[every].sum(), weights[none].sum()], [1, -1])


def test_sampled_orders_keep_the_sum_and_come_near_the_exact_shares():
    d = EXACT_AXES + 1
    points, kernel, sample = fitted(d)
    shares = odds_shares(points[:6], kernel, sample, base)
    odds = -log_ratios(points[:6], kernel, sample, everything(points[:6], d))
    np.testing.assert_allclose(shares.sum(axis=1), odds, atol=1e-4)
    coalitions, weights = exact(d)
    exactly = worths(points[:6], kernel, sample, base, coalitions).T @ weights
    assert np.abs(shares - exactly).max() < 0.2 * np.abs(exactly).max()
    assert len(sampled(d)[0]) < len(coalitions)
