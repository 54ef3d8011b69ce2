"""Calibration of photographs: by how far scores reach towards those of strangers."""

import numpy as np
import pytest

from service.core.decide.calibration import MOST_KNOTS
from service.core.decide.graded_calibration import BEYOND, GRID, PLACES, VOUCHED, _compress, _expand, calibrate_graded
from service.core.detect.scoring import score
from service.core.explain.attribution import attribute
from service.core.population import Population


def scores_at(reach):
    """Return the scores that reach so far, from a median of -8 to strangers at 2 when compressed."""
    return _expand(-8 + 10 * np.asarray(reach))


def normal_scores(n, random):
    """Return scores that reach as far as the table says."""
    reach = np.interp(np.log(random.uniform(0, 0.5, n)), np.log(BEYOND[::-1]), PLACES[::-1])
    low = random.random(n) < 0.5
    return scores_at(np.where(low, -0.3 * random.random(n), reach))


def batch(n, outliers, random):
    """Return scores of a batch whose outliers vouch for each other more or less, of its population, and the truth."""
    far = scores_at(random.uniform(VOUCHED[0], VOUCHED[-1]) * (1 + 0.1 * random.standard_normal(outliers)))
    scores = np.concatenate([normal_scores(n - outliers, random), far])
    population = np.concatenate([normal_scores(60, random), scores_at(1 + 0.1 * random.standard_normal(240))])
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
    assert (probability[truth] > 0.5).mean() > 0.55


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


def graded_batch(outliers, n=100, seed=0):
    """Return a population of ten kinds and a batch of one, with some images of one other kind: latents, which."""
    random = np.random.default_rng(seed)
    centres = 1.2 * random.standard_normal((10, 8))
    scales = random.gamma(4, 0.25, (2000, 1))
    means = centres[np.arange(2000) % 10] + 0.35 * scales * random.standard_normal((2000, 8))
    kind = np.where(np.arange(n) < outliers, 1, 0)
    batch = centres[kind] + 0.35 * random.gamma(4, 0.25, (n, 1)) * random.standard_normal((n, 8))

    def latents(points):
        return np.stack([points, np.full_like(points, np.log(0.3))], axis=1)

    population = Population.from_latents(latents(random.permutation(means)), graded=True)
    return latents(batch), population, np.arange(n) < outliers


def test_compression_is_undone():
    scores = np.array([-30.0, -1.0, 0.0, 0.5, 4.0, 900.0])
    np.testing.assert_allclose(_expand(_compress(scores)), scores, rtol=1e-9)
    assert (np.diff(_compress(scores)) > 0).all()


def test_probable_outliers_take_no_part_in_the_context():
    left_out = 0
    for seed in range(6):
        latents, population, is_outlier = graded_batch(4, seed=seed)
        scores = score(latents, population, estimator="density_ratio")
        assert scores.rank[is_outlier].max() <= 10
        left_out += scores.context.size < 100
        assert scores.context.size >= 50
        assert scores.context.contamination == pytest.approx(0.04, abs=0.04)
    assert left_out >= 1


def test_clean_graded_batches_have_hardly_a_flag():
    flagged = []
    for seed in range(10):
        latents, population, _ = graded_batch(0, seed=seed)
        flagged.append(score(latents, population, estimator="density_ratio").is_outlier.mean())
    assert np.mean(flagged) < 0.02


def test_the_order_of_a_graded_batch_changes_nothing():
    latents, population, _ = graded_batch(7)
    order = np.random.default_rng(1).permutation(len(latents))
    first = score(latents, population, estimator="density_ratio")
    again = score(latents[order], population, estimator="density_ratio")
    np.testing.assert_array_equal(first.outlier_score[order], again.outlier_score)


def whole_collection():
    """Return a population of ten kinds, and a batch of all of them with three images far outside."""
    _, population, _ = graded_batch(0)
    random = np.random.default_rng(3)
    means = population.sample[random.permutation(len(population.sample))[:300]].copy()
    means[:3] += 6 * random.choice([-1, 1], (3, means.shape[1]))
    return np.stack([means, np.full_like(means, np.log(0.3))], axis=1), population


def test_a_batch_as_wide_as_the_population_ranks_the_furthest_first_and_flags_nothing():
    latents, population = whole_collection()
    scores = score(latents, population, estimator="density_ratio")
    assert set(np.flatnonzero(scores.rank <= 3)) == {0, 1, 2}
    assert not scores.is_outlier.any()
    assert scores.context.reliability == "low"
    assert any("as varied as" in warning for warning in scores.context.warnings)


@pytest.mark.parametrize("narrow", [True, False])
def test_attributions_add_up_to_the_score_that_ranks(narrow):
    latents, population = graded_batch(4)[:2] if narrow else whole_collection()
    scores = score(latents, population, estimator="density_ratio")
    terms = attribute(latents, scores.context, population)
    np.testing.assert_allclose(np.ptp(terms.shapley_odds.sum(axis=1) - scores.outlier_score), 0, atol=1e-6)
