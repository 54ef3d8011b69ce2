"""Probabilities that mean what they say, for light and heavy tails, few and many images, and degenerate scores."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from service.core.decide import calibration
from service.core.decide.calibration import FEWEST, GRID, MOST_KNOTS, QUANTILES, calibrate

POPULATION = 3 + 6 * stats.f.rvs(4, 12, size=250, random_state=99)


def batch(n, outliers, tail, seed):
    """Return scores (n,): normal ones follow F, outliers the population's; and which are outliers."""
    random = np.random.default_rng(seed)
    normal = stats.f.rvs(6, tail, size=n - outliers, random_state=random)
    return np.concatenate([normal, random.choice(POPULATION, outliers)]), np.arange(n) >= n - outliers


def probabilities(scores, population=POPULATION):
    calibration = calibrate(scores, population, 0.1)
    return 1 / (1 + np.exp(-calibration.log_odds(scores, calibration.share)))


def calibration_error(probability, truth):
    """Return the expected calibration error over ten bins (Naeini et al. 2015)."""
    bins = np.minimum((probability * 10).astype(int), 9)
    return sum(
        (bins == each).mean() * abs(probability[bins == each].mean() - truth[bins == each].mean())
        for each in np.unique(bins)
    )


# The heavier the tail of normal images, and the fewer there are, the less can be known.
@pytest.mark.parametrize(
    ("tail", "n", "most_error"),
    [(3, 50, 0.035), (3, 350, 0.025), (8, 50, 0.035), (8, 350, 0.02), (1e4, 50, 0.025), (1e4, 350, 0.01)],
)
def test_probabilities_are_calibrated(tail, n, most_error):
    everything = [batch(n, outliers, tail, seed) for seed in range(40) for outliers in (0, n // 50, n // 10, n // 5)]
    probability = np.concatenate([probabilities(scores) for scores, _ in everything])
    truth = np.concatenate([truth for _, truth in everything])
    assert calibration_error(probability, truth) < most_error


def test_what_is_nearly_certain_is_nearly_always_right():
    everything = [
        batch(350, outliers, tail, seed) for seed in range(20) for tail in (8, 1e4) for outliers in (0, 7, 35)
    ]
    probability = np.concatenate([probabilities(scores) for scores, _ in everything])
    truth = np.concatenate([truth for _, truth in everything])
    assert truth[probability > 0.9].mean() > 0.95


@pytest.mark.parametrize(("tail", "most"), [(8, 0.01), (1e4, 0.003)])
@pytest.mark.parametrize("n", [20, 50, 350])
def test_a_clean_batch_has_hardly_a_flag(n, tail, most):
    flagged = [(probabilities(batch(n, 0, tail, seed)[0]) > 0.5).mean() for seed in range(100)]
    assert np.mean(flagged) < most


@pytest.mark.parametrize("n", [20, 50, 350])
def test_a_batch_like_the_population_has_few_flags(n):
    random = np.random.default_rng(5)
    flagged = [(probabilities(random.choice(POPULATION, n)) > 0.5).mean() for _ in range(40)]
    assert np.mean(flagged) < 0.03


def test_a_third_of_a_batch_may_be_outliers():
    found, false = [], []
    for seed in range(20):
        scores, truth = batch(200, 70, 1e4, seed)
        flagged = probabilities(scores) > 0.5
        found.append(flagged[truth].mean())
        false.append(flagged[~truth].mean())
    assert np.mean(found) > 0.9
    assert np.mean(false) < 0.02


def test_log_odds_never_fall():
    scores, _ = batch(100, 10, 6, 1)
    calibration = calibrate(scores, POPULATION, 0.1)
    odds = calibration.log_odds(np.linspace(scores.min() - 10, POPULATION.max() + 100, 2_000), 0.05)
    assert (np.diff(odds) >= 0).all()
    assert len(calibration.scores) == len(calibration.evidence) <= MOST_KNOTS
    assert (np.diff(calibration.scores) > 0).all()


def test_the_zero_is_where_the_odds_are_even():
    scores, _ = batch(350, 30, 1e4, 1)
    calibration = calibrate(scores, POPULATION, 0.1)
    assert abs(calibration.log_odds(calibration.zero(0.05), 0.05)) < 1e-9


def test_neither_order_nor_an_offset_matters():
    scores, _ = batch(120, 12, 6, 2)
    first, again = calibrate(scores, POPULATION, 0.1), calibrate(scores[::-1], POPULATION[::-1], 0.1)
    np.testing.assert_array_equal(first.evidence, again.evidence)
    moved = calibrate(scores + 1e3, POPULATION + 1e3, 0.1)
    np.testing.assert_allclose(moved.evidence, first.evidence, atol=1e-6)


@pytest.mark.parametrize("n", [FEWEST, 20, 300])
def test_images_that_all_score_alike_are_normal(n):
    probability = probabilities(np.full(n, 2.0))
    assert probability.max() < 0.1


def test_differences_below_the_noise_mean_nothing():
    scores = np.append(np.zeros(30), 0.5)
    assert 1 / (1 + np.exp(-calibrate(scores, POPULATION, 1.5).log_odds(0.5, 0.03))) < 0.5


@pytest.mark.parametrize("far", [1e6, 1e12])
def test_scores_beyond_all_others_stay_finite(far):
    scores = np.append(batch(50, 0, 1e4, 3)[0], far)
    calibration = calibrate(scores, POPULATION, 0.1)
    odds = calibration.log_odds(np.array([-far, far, 10 * far]), 0.05)
    assert np.isfinite(odds).all()
    assert odds[1] > 0


def test_location_and_scale_follow_from_interpolated_quantiles():
    random = np.random.default_rng(4)
    for n in (4, 5, 8, 60):
        ordered, normal = np.sort(random.normal(size=n)), random.random((len(calibration._TAIL), n))
        weights = normal + 1e-9
        positions = (np.cumsum(weights, axis=1) - 0.5 * weights) / weights.sum(axis=1, keepdims=True)
        low, high = np.array([np.interp(QUANTILES, each, ordered) for each in positions]).T
        expected_scale = np.maximum((high - low) / np.ptp(calibration._STANDARD, axis=1), 0.1)
        location, scale = calibration._fit_location_scale(ordered, normal, 0.1)
        assert_allclose(scale[:, 0], expected_scale, rtol=1e-12)
        assert_allclose(location[:, 0], low - expected_scale * calibration._STANDARD[:, 0], rtol=1e-12, atol=1e-12)


def test_densities_of_all_pairs_are_interpolated_as_one_is():
    random = np.random.default_rng(5)
    pairs = len(calibration._TAIL)
    height, density = random.uniform(GRID[0], GRID[-1] + 1, (pairs, 9)), random.random((pairs, len(GRID)))
    height[:, 0], height[:, 1] = GRID[0], GRID[-1]
    bins, near = calibration._find_bins(height)
    together = (1 - near) * density.ravel()[bins] + near * density.ravel()[bins + 1]
    alone = [np.interp(own, GRID, row) for own, row in zip(height, density, strict=True)]
    assert_allclose(together, alone, rtol=1e-9)
