"""Calibration of photographs: by how far scores reach towards those of strangers."""

from dataclasses import replace

import numpy as np
import pytest

from service.core.decide.calibration import MOST_KNOTS, SHARES
from service.core.decide.graded_calibration import (
    _BEYOND,
    BEYOND,
    COARSENESS,
    FEW,
    GRID,
    MASKED,
    PLACES,
    SHARE_PRIOR,
    TAILS,
    VOUCHED,
    _compress,
    _expand,
    calibrate_graded,
    compare,
    log_tails,
    tail_power,
)
from service.core.detect.density_ratio import log_ratios
from service.core.detect.discriminant import ratio_shares
from service.core.detect.estimators.registry import estimator_of
from service.core.detect.fit import fit
from service.core.detect.gaussian_odds import background_fit, normal_fit, outlier_log_odds
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
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
    for index in range(120):
        # As common as the prior says; masked outliers score as normal images do.
        place = index % len(SHARES)
        outliers, is_masked = round(SHARES[place] * n), random.random() < MASKED[place]
        scores, population, is_outlier = batch(n, outliers, random)
        if is_masked:
            scores = normal_scores(n, random)
        calibration = calibrate_graded(scores, population, 0.1)
        posterior = 1 / (1 + np.exp(-calibration.log_odds(scores, calibration.share)))
        probability.append(posterior)
        truth.append(is_outlier)
        if outliers <= 1:
            clean.append((posterior[~is_outlier] > 0.5).mean())
    probability, truth = np.concatenate(probability), np.concatenate(truth)
    place = np.minimum((10 * probability).astype(int), 9)
    error = sum(
        (place == each).mean() * abs(probability[place == each].mean() - truth[place == each].mean())
        for each in np.unique(place)
    )
    assert error < 0.05
    assert np.mean(clean) < 0.02
    assert (probability[truth] > 0.5).mean() > 0.4


def naive_odds(scores, population, reaches, is_batch):
    """Return the log odds at `reaches` by a sum over every tail, share and cause, in plain loops."""
    compressed = _compress(scores)
    median = np.median(compressed)
    strangers = _compress(population)[_compress(population) > median]
    way = np.median(strangers) - median
    places = (compressed - median) / way
    evidence = compare((strangers - median) / way, log_tails(len(scores) if is_batch else np.inf))
    fits, terms = [], []
    for tail, power in enumerate(TAILS / (1 + FEW / len(scores)) if is_batch else TAILS):

        def normal(x, power=power):
            return np.interp(x, GRID, np.log(power) + (power - 1) * (_BEYOND(GRID) - np.log(0.5)))

        of_tail = []
        for share, prior, masked in zip(SHARES, SHARE_PRIOR, MASKED * is_batch, strict=True):
            for is_masked, weight in ((False, 1 - masked), (True, masked)):
                if weight == 0:
                    continue
                fit = np.log(prior * weight)
                for x in places:
                    ratio = 0 if is_masked else np.interp(x, GRID, evidence[tail])
                    fit += normal(x) if x > 0 else 0
                    fit += 0 if is_masked else np.log(share * np.exp(ratio) + 1 - share)
                of_tail.append(fit)
                ratio = 0 if is_masked else np.interp(reaches, GRID, evidence[tail])
                terms.append((tail, share * np.exp(normal(reaches) + ratio), (1 - share) * np.exp(normal(reaches))))
        fits.append(np.array(of_tail))
    whole = np.array([np.logaddexp.reduce(each) for each in fits])
    coarse = whole / (1 + len(scores) / COARSENESS)
    weights = np.concatenate([np.exp(fits[tail] - whole[tail] + coarse[tail] - coarse.max()) for tail in range(3)])
    abnormal = sum(weight * term[1] for weight, term in zip(weights, terms, strict=True))
    usual = sum(weight * term[2] for weight, term in zip(weights, terms, strict=True))
    return np.log(abnormal / usual)


@pytest.mark.parametrize("is_batch", [True, False])
def test_the_odds_are_those_of_a_sum_over_all_tails_shares_and_causes(is_batch):
    scores, population, _ = batch(30, 3, np.random.default_rng(5))
    calibration = calibrate_graded(scores, population, 0.1, is_batch)
    odds = calibration.log_odds(calibration.scores, calibration.share)
    expected = np.maximum.accumulate(naive_odds(scores, population, GRID, is_batch))
    np.testing.assert_allclose(odds, expected, rtol=1e-6, atol=1e-6)


def test_outliers_that_may_be_masked_keep_a_clean_batch_from_being_sure():
    scores, population, _ = batch(100, 0, np.random.default_rng(1))
    may, cannot = (calibrate_graded(scores, population, 0.1, is_batch) for is_batch in (True, False))
    lowest = [calibration.log_odds(np.array([-8.0]), calibration.share)[0] for calibration in (may, cannot)]
    assert -4 < lowest[0] < -1.5
    assert lowest[1] < -5


def test_normal_images_of_few_reach_further():
    far = np.searchsorted(GRID, 0.9)
    densities = np.array([log_tails(n)[:, far] for n in (20, 50, 200, np.inf)])
    assert (np.diff(densities, axis=0) < 0).all()
    np.testing.assert_allclose(densities[-1], np.log(TAILS) + (TAILS - 1) * (_BEYOND(GRID[far]) - np.log(0.5)))


@pytest.mark.parametrize("power", [0.7, 1.3])
def test_the_power_of_a_tail_is_the_one_that_made_it(power):
    beyond = np.random.default_rng(2).random(4000) ** (1 / power) / 2
    reach = np.interp(np.log(beyond), _BEYOND(GRID)[::-1], GRID[::-1])
    assert tail_power(np.concatenate([reach, -reach])) == pytest.approx(power, rel=0.05)


def test_the_same_score_says_less_in_a_batch_of_few_than_against_a_reference():
    scores, population, _ = batch(20, 0, np.random.default_rng(0))
    few, reference = (calibrate_graded(scores, population, 0.1, is_batch) for is_batch in (True, False))
    far = scores_at([0.8, 0.9])
    assert (few.log_odds(far, 0.1) < reference.log_odds(far, 0.1)).all()


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
        # Whether as many again are masked cannot be known.
        assert scores.context.contamination == pytest.approx(0.07, abs=0.07)
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


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_batch_that_is_nearly_as_wide_as_the_population_shows_no_strangers(share):
    random = np.random.default_rng(2)
    scores = normal_scores(100, random)
    median = np.median(scores)
    population = np.where(random.random(250) < share, median + 8 * random.random(250), median - random.random(250))
    calibration = calibrate_graded(scores, population, 0.1)
    assert np.ptp(calibration.evidence) == 0


@pytest.mark.parametrize("narrow", [True, False])
def test_attributions_add_up_to_the_score_that_ranks(narrow):
    latents, population = graded_batch(4)[:2] if narrow else whole_collection()
    scores = score(latents, population, estimator="density_ratio")
    terms = attribute(latents, scores.context, population)
    span = np.ptp(scores.outlier_score)
    np.testing.assert_allclose(np.ptp(terms.shapley_odds.sum(axis=1) - scores.outlier_score), 0, atol=1e-6 * span)


def test_a_fifth_of_one_kind_ranks_first():
    found = []
    for seed in range(6):
        latents, population, is_outlier = graded_batch(20, seed=seed)
        scores = score(latents, population, estimator="density_ratio")
        found.append(is_outlier[scores.rank <= 20].mean())
        # By the Gaussian of all images alone they are masked more often.
        assert scores.context.robust is not None
    assert np.mean(found) > 0.9


def test_photographs_have_a_base_of_two_gaussians_and_a_linear_discriminant():
    latents, population, _ = graded_batch(20)
    by_rules = replace(population, graded=False)
    assert fit(latents, by_rules, estimator="density_ratio", source="batch").robust is None
    context = fit(latents, population, estimator="density_ratio", source="batch")
    units = PopulationUnits.of(population)
    points, background = units.points(latents), background_fit(context, units)
    half = outlier_log_odds(points, context.robust, background)
    everything = outlier_log_odds(points, normal_fit(context, units), background)
    kernels = log_ratios(points, context.kernel, units.sample, -(half + everything) / 2)
    ridge = context.posterior_variance / units.unit**2
    linear = ratio_shares(points, context.kernel, units.correlation, ridge).sum(axis=1)
    # The batch is far narrower than the population, but not infinitely: a little of the distance is added.
    np.testing.assert_allclose(log_odds_of(latents, context, population), -kernels - linear, atol=2e-3)
    assert np.ptp(linear) > 0.5
    assert np.abs(half - everything).max() > 1


@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_half_of_a_few_images_still_makes_a_context(size):
    latents, population, _ = graded_batch(0, n=size)
    context = fit(latents, population, estimator="density_ratio", source="batch")
    assert np.isfinite(context.robust.covariance).all()
    assert np.isfinite(score(latents, population, estimator="density_ratio").outlier_score).all()


def log_odds_of(latents, context, population):
    """Return the estimator's own log odds (n,), before calibration."""
    units = PopulationUnits.of(population)
    return estimator_of(context).log_odds(units.points(latents), context, units)
