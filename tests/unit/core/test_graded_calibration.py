"""Calibration of photographs: by how far scores reach towards those of strangers."""

import numpy as np
import pytest

from service.core.decide.calibration import MOST_KNOTS
from service.core.decide.graded_calibration import BEYOND, GRID, PLACES, VOUCHED, calibrate_graded


def normal_scores(n, random):
    """Return scores that reach as far as the table says, from a median of -8 to strangers at 2."""
    reach = np.interp(np.log(random.uniform(0, 0.5, n)), np.log(BEYOND[::-1]), PLACES[::-1])
    low = random.random(n) < 0.5
    return -8 + 10 * np.where(low, -0.3 * random.random(n), reach)


def batch(n, outliers, random):
    """Return scores of a batch whose outliers vouch for each other more or less, of its population, and the truth."""
    far = -8 + random.uniform(VOUCHED[0], VOUCHED[-1]) * (10 + random.standard_normal(outliers))
    scores = np.concatenate([normal_scores(n - outliers, random), far])
    population = np.concatenate([normal_scores(60, random), 2 + random.standard_normal(240)])
    return scores, population, np.arange(n) >= n - outliers


@pytest.mark.parametrize("n", [20, 50, 350])
def test_probabilities_are_right_and_clean_batches_have_hardly_a_flag(n):
    random = np.random.default_rng(n)
    probability, truth, clean = [], [], []
    for index in range(60):
        outliers = (0, 0, round(0.05 * n), round(0.1 * n), round(0.2 * n))[index % 5]
        scores, population, is_outlier = batch(n, outliers, random)
        calibration = calibrate_graded(scores, population, 0.1)
        posterior = 1 / (1 + np.exp(-calibration.log_odds(scores, calibration.share)))
        probability.append(posterior)
        truth.append(is_outlier)
        if outliers == 0:
            clean.append((posterior > 0.5).mean())
    probability, truth = np.concatenate(probability), np.concatenate(truth)
    place = np.minimum((10 * probability).astype(int), 9)
    error = sum(
        (place == each).mean() * abs(probability[place == each].mean() - truth[place == each].mean())
        for each in np.unique(place)
    )
    assert error < 0.03
    assert np.mean(clean) < 0.02
    assert (probability[truth] > 0.5).mean() > 0.7


def test_a_context_may_carry_it():
    assert len(GRID) <= MOST_KNOTS


def test_evidence_never_falls_and_the_share_is_one_of_the_batch():
    scores, population, _ = batch(350, 35, np.random.default_rng(0))
    calibration = calibrate_graded(scores, population, 0.1)
    assert (np.diff(calibration.evidence) >= 0).all()
    assert (np.diff(calibration.scores) > 0).all()
    assert 0.04 < calibration.share < 0.2


@pytest.mark.parametrize("population", [np.full(50, -8.0), np.array([5.0]), np.linspace(-20, -9, 50)])
def test_odd_populations_give_finite_evidence(population):
    calibration = calibrate_graded(np.full(20, -8.0), population, 0.1)
    assert np.isfinite(calibration.evidence).all()
    assert (np.diff(calibration.scores) > 0).all()
