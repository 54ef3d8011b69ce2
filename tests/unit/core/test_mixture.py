"""The mixture estimator where plain EM fails: masking, few images, several modes, images far outside."""

import numpy as np
import pytest
from scipy.special import entr, expit, logit
from sklearn.metrics import roc_auc_score

from service.core.detect.estimators import mixture
from service.core.detect.estimators.mixture import SEARCH_SIZE, fit_mixture
from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import outlier_log_odds

D = 9
FLOOR = np.full(D, 0.002)
BACKGROUND = Fit(np.zeros(D), np.eye(D) + np.diag(FLOOR))


def batch(n, outliers, seed, narrow=2, spread=0.07):
    """Points (n, D) in population units: inliers share a point on the first `narrow` axes, outliers nothing."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, D))
    points[outliers:, :narrow] = rng.uniform(-1.4, 1.4, narrow) + spread * rng.standard_normal((n - outliers, narrow))
    return points, np.arange(n) < outliers


def odds(points):
    fit = fit_mixture(points, FLOOR, BACKGROUND)
    return outlier_log_odds(points, fit, BACKGROUND) + logit(0.05), fit


@pytest.mark.parametrize("outliers", [0, 25, 140])
def test_moments_are_recovered(outliers):
    points, truth = batch(350, outliers, seed=1)
    _, fit = odds(points)
    np.testing.assert_allclose(fit.location[:2], points[~truth, :2].mean(axis=0), atol=0.03)
    np.testing.assert_allclose(np.diag(fit.covariance)[:2], 0.07**2 + 0.002, rtol=0.5)
    assert (np.diag(fit.covariance)[2:] > 0.6).all()


def test_half_of_a_small_batch_may_be_outliers():
    areas = []
    for seed in range(20):
        points, truth = batch(28, 14, seed)
        areas.append(roc_auc_score(truth, odds(points)[0]))
    assert np.mean(areas) > 0.95


def test_directions_as_wide_as_the_population_say_nothing():
    points, _ = batch(200, 10, seed=2)
    _, fit = odds(points)
    moved = points.copy()
    moved[:, 2:] = 0
    scores, unmoved = (outlier_log_odds(each, fit, BACKGROUND) for each in (moved, points))
    assert np.corrcoef(scores, unmoved)[0, 1] > 0.99


def test_a_free_hue_of_ten_clumps_is_one_context():
    rng = np.random.default_rng(3)
    points, truth = batch(350, 25, seed=3)
    angle = 2 * np.pi * rng.integers(0, 10, 350) / 10
    points[:, 4:6] = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.standard_normal(
        (350, 2)
    )
    scores, _ = odds(points)
    assert roc_auc_score(truth, scores) > 0.99
    assert (scores[~truth] > 0).mean() < 0.01


def test_a_tight_direction_across_the_axes_is_found():
    rng = np.random.default_rng(4)
    points = rng.standard_normal((350, D))
    points[25:, 0] = points[25:, 1] + 0.05 * rng.standard_normal(325)
    truth = np.arange(350) < 25
    scores, _ = odds(points)
    known = Fit(np.zeros(D), np.cov(points[~truth], rowvar=False))
    best = roc_auc_score(truth, outlier_log_odds(points, known, BACKGROUND))
    assert roc_auc_score(truth, scores) > best - 0.01


def test_a_batch_like_the_population_has_no_outliers():
    for seed in range(10):
        points = np.random.default_rng(seed).standard_normal((60, D))
        scores, _ = odds(points)
        assert (scores > 0).mean() < 0.05


def test_an_image_far_outside_is_an_outlier_even_on_a_free_axis():
    points, _ = batch(100, 5, seed=5)
    points[50, 7] = 25.0
    scores, fit = odds(points)
    assert scores[50] > 100
    assert np.diag(fit.covariance)[7] < 1.5


def test_more_images_than_the_search_takes_still_all_count():
    points, truth = batch(5 * SEARCH_SIZE, 200, seed=6)
    _, fit = odds(points)
    np.testing.assert_allclose(fit.location[:2], points[~truth, :2].mean(axis=0), atol=0.002)


@pytest.mark.parametrize("n", [3, 8, 40])
def test_modes_that_are_refined_together_are_those_refined_alone(n):
    points, _ = batch(n, n // 4, seed=5)
    noise, r = np.diag(FLOOR), np.random.default_rng(n).uniform(0.01, 1, (6, n))
    alone = [mixture.refine(points, noise, each[None]) for each in r]
    best, together = max(alone, key=lambda mode: mode.evidence), mixture.refine(points, noise, r)
    assert together.evidence == pytest.approx(best.evidence, rel=1e-9)
    np.testing.assert_allclose(together.location, best.location, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(together.covariance, best.covariance, rtol=1e-7, atol=1e-9)


def test_responsibilities_and_evidence_are_those_of_the_textbook_however_far_the_odds_are():
    log_ratio, size, n = np.array([[-900.0, -3.0, 0.0, 2.5, 900.0]]), np.array([3.2]), 5
    gain, price = np.array([[-800.0, -2.0, 0.5, 700.0]]), np.array([[1.5, 2.0, 2.5, 3.0]])
    narrow = expit(gain - price)
    log_odds = mixture._log_odds(log_ratio, size, n)
    evidence = mixture._evidence(n, mixture._likelihood(log_odds), np.tile(size, (1, 4)), gain - price, narrow, gain)
    eps = (n - size + mixture.OUTLIERS) / (n + mixture.OUTLIERS + mixture.INLIERS + mixture.RELUCTANCE * n)
    expected = expit(log_ratio + logit(1 - eps))
    np.testing.assert_allclose(mixture._probability(log_odds), expected, rtol=1e-12, atol=1e-300)
    total = np.logaddexp(np.log(1 - eps) + log_ratio, np.log(eps)).sum()
    prior = mixture.OUTLIERS * np.log(eps) + (mixture.INLIERS + mixture.RELUCTANCE * n) * np.log(1 - eps)
    choice = (entr(narrow) + entr(1 - narrow) - narrow * price).sum()
    np.testing.assert_allclose(evidence, total + prior + choice, rtol=1e-12)


def test_the_search_starts_from_all_points_and_from_the_shortest_stretches_of_every_axis():
    points, _ = batch(11, 3, seed=2)
    first, *rest = mixture.starts(points)
    assert (first == 1).all()
    assert len(rest) == len(mixture.START_SHARES) * D
    for place, inside in enumerate(rest):
        count, axis = int(np.ceil(mixture.START_SHARES[place // D] * len(points))), points[:, place % D]
        ordered = np.sort(axis)
        assert inside.sum() == count
        assert np.ptp(axis[inside == 1]) == (ordered[count - 1 :] - ordered[: len(axis) - count + 1]).min()
