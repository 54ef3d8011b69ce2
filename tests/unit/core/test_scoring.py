import re
from typing import get_args

import numpy as np
import pytest

from service.core.detect.batch_context import CLEARLY_MISFITS
from service.core.detect.estimators.classical import leave_one_out_distances
from service.core.detect.scoring import false_discovery_flags, score
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName
from service.errors import ContextTooSmall, InvalidInput, InvalidOption, ShapeMismatch

ESTIMATORS = get_args(EstimatorName)
LIVE, DEAD = 5, 2


def as_latents(mean, variance=0.01):
    """Latents (n, 2, L) of encoder means (n, L) and one posterior variance."""
    mean = np.asarray(mean)
    return np.stack([mean, np.full_like(mean, np.log(variance))], axis=1).astype(np.float32)


def population_latents(n=4000, seed=0):
    mean = np.random.default_rng(seed).standard_normal((n, LIVE + DEAD))
    mean[:, LIVE:] *= 0.03
    return as_latents(mean)


def labelled_batch(n=200, outliers=12, seed=1):
    """Normal: the first two latents fixed near (1, -1); outliers come from the population."""
    latents = population_latents(n, seed)
    rng = np.random.default_rng(seed)
    latents[outliers:, 0, :2] = [1.0, -1.0] + 0.05 * rng.standard_normal((n - outliers, 2))
    truth = np.arange(n) < outliers
    order = rng.permutation(n)
    return latents[order], truth[order]


@pytest.fixture(scope="module")
def population():
    return Population.from_latents(population_latents())


def assert_valid(scores, n):
    for values in (scores.outlier_score, scores.mahalanobis_squared, scores.outlier_probability):
        assert values.shape == (n,)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    assert (scores.mahalanobis_squared >= 0).all()
    assert ((scores.outlier_probability >= 0) & (scores.outlier_probability <= 1)).all()
    assert sorted(scores.rank) == list(range(1, n + 1))
    assert (np.diff(scores.outlier_score[np.argsort(scores.rank)]) <= 0).all()
    assert np.isfinite(scores.context.covariance).all()
    np.linalg.cholesky(scores.context.covariance)


# --- leave one out -------------------------------------------------------------------------------


def naive_leave_one_out(points, floor):
    distances = []
    for i, point in enumerate(points):
        others = np.delete(points, i, axis=0)
        delta = point - others.mean(axis=0)
        covariance = np.cov(others, rowvar=False) + np.diag(floor)
        distances.append(delta @ np.linalg.solve(covariance, delta))
    return np.array(distances)


@pytest.mark.parametrize(("n", "d"), [(350, 10), (13, 12), (20, 1), (8, 6)])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_leave_one_out_equals_the_naive_loop(n, d, noise):
    rng = np.random.default_rng(n + d)
    points = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3
    if n - 2 < d:
        noise = 0.01
    floor = np.full(d, noise)
    fast, naive = leave_one_out_distances(points, floor), naive_leave_one_out(points.reshape(n, d), floor)
    np.testing.assert_allclose(fast, naive, rtol=1e-9)


def test_leave_one_out_without_a_floor_is_the_published_closed_form():
    points = np.random.default_rng(3).standard_normal((60, 7))
    n, delta = 60, points - points.mean(axis=0)
    d2 = np.einsum("ij,jk,ik->i", delta, np.linalg.inv(np.cov(points, rowvar=False)), delta)
    published = (n / (n - 1)) ** 2 * ((n - 2) / (n - 1)) * d2 / (1 - n * d2 / (n - 1) ** 2)
    np.testing.assert_allclose(leave_one_out_distances(points, np.zeros(7)), published, rtol=1e-9)


def test_leave_one_out_does_not_saturate(population):
    latents, _ = labelled_batch(50, 0)
    latents[0, 0, 0] = 40.0
    scores = score(latents, population, estimator="leave_one_out")
    assert scores.rank[0] == 1
    assert scores.mahalanobis_squared[0] > 49**2 / 50  # the bound of a distance that includes its own image


# --- finding outliers ----------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_outliers_rank_first(population, estimator):
    latents, truth = labelled_batch()
    scores = score(latents, population, estimator=estimator)
    assert_valid(scores, len(latents))
    assert scores.context.source == "batch"
    assert scores.context.size == len(latents)
    assert scores.context.estimator == estimator
    is_first = scores.rank[truth] <= truth.sum()
    assert is_first.mean() >= (1.0 if estimator in ("mixture", "robust", "mcd") else 0.75)
    # With these the outliers widen the moments that they are compared with: little is clear, and it may be said.
    if estimator not in ("leave_one_out", "ledoit_wolf", "oas"):
        assert scores.context.reliability == "high"
        assert scores.context.warnings == ()


def test_default_estimator_flags_the_outliers_and_little_else(population):
    latents, truth = labelled_batch(400, 28)
    scores = score(latents, population)
    assert scores.context.estimator == DEFAULT_ESTIMATOR
    assert scores.is_outlier[truth].mean() > 0.9
    assert scores.is_outlier[~truth].mean() < 0.01
    assert abs(scores.context.contamination - 0.07) < 0.03


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_clean_batch_is_hardly_flagged(population, estimator):
    latents, _ = labelled_batch(350, 0)
    assert score(latents, population, estimator=estimator).is_outlier.mean() <= 0.01


def test_a_minority_that_hides_its_own_spread_is_still_found(population):
    """Masking: at 30% contamination the plain moments are the outliers' own."""
    latents, truth = labelled_batch(350, 105)
    scores = score(latents, population)
    assert scores.is_outlier[truth].mean() > 0.9
    assert scores.is_outlier[~truth].mean() < 0.02


def test_heavy_contamination_asks_for_a_reference(population):
    latents, _ = labelled_batch(300, 150)
    context = score(latents, population).context
    assert context.contamination >= 0.4
    assert context.reliability == "low"
    assert any("reference" in warning for warning in context.warnings)


def test_batches_without_a_gap_say_that_flags_are_doubtful(population):
    """Heavy tails: outliers lie where normal images do too. Where a rule separates them, nothing is said."""
    doubtful = certain = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        mean = np.zeros((350, LIVE + DEAD))
        tails = np.sqrt(random.chisquare(3, (350, 1)) / 3)
        mean[:, :LIVE] = 0.25 * random.standard_normal((350, LIVE)) / tails
        mean[:18, :LIVE] = random.standard_normal((18, LIVE))
        doubtful += score(as_latents(mean), population).context.reliability == "low"
        latents, _ = labelled_batch(350, 18, seed=seed)
        certain += score(latents, population).context.reliability == "high"
    assert doubtful >= 7
    assert certain >= 7


@pytest.mark.parametrize("size", [20, 50])
def test_small_batches_with_heavy_tails_are_not_reliably_wrong(population, size):
    """A gap keeps the flags of a rule reliable; the ends of a heavy tail have none."""
    trusted = certain = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        mean = np.zeros((size, LIVE + DEAD))
        tails = np.sqrt(random.chisquare(3, (size, 1)) / 3)
        mean[:, :LIVE] = 0.25 * random.standard_normal((size, LIVE)) / tails
        scores = score(as_latents(mean), population)
        trusted += scores.is_outlier.any() and scores.context.reliability == "high"
        latents, truth = labelled_batch(size, 2, seed=seed)
        scores = score(latents, population)
        certain += scores.is_outlier[truth].any() and scores.context.reliability == "high"
    assert trusted <= 4
    assert certain >= 24


def test_a_third_kind_is_no_misfit(population):
    """Of three clumps of the same number, none is flagged unless the answer doubts it."""
    for seed in range(6):
        random = np.random.default_rng(seed)
        mean = np.zeros((48, LIVE + DEAD))
        mean[:, :LIVE] = 1.2 * np.array([[0, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, -1]])[np.arange(48) % 3]
        mean[:, :LIVE] += 0.05 * random.standard_normal((48, LIVE))
        scores = score(as_latents(mean), population)
        assert not scores.is_outlier.any() or scores.context.reliability == "low"


# --- degenerate contexts -------------------------------------------------------------------------


def test_zero_images_are_refused(population):
    with pytest.raises(InvalidInput, match="0 images"):
        score(population_latents(0), population)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_image_is_scored_against_the_population(population, estimator):
    near, far = as_latents(np.zeros((1, LIVE + DEAD))), as_latents(np.full((1, LIVE + DEAD), 4.0))
    first, second = (score(latents, population, estimator=estimator) for latents in (near, far))
    assert_valid(first, 1)
    assert first.context.source == "population"
    assert first.context.size == 0
    assert first.context.reliability == "low"
    assert "population" in first.context.warnings[0]
    assert second.outlier_score[0] > first.outlier_score[0]
    assert not first.is_outlier[0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_images_are_blended_with_the_population(population, estimator):
    mean = np.zeros((2, LIVE + DEAD))
    mean[1, :LIVE] = 5.0
    scores = score(as_latents(mean), population, estimator=estimator)
    assert_valid(scores, 2)
    assert scores.context.reliability == "low"
    assert "population" in scores.context.warnings[0]
    assert scores.mahalanobis_squared[1] > scores.mahalanobis_squared[0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("n", [3, 4, LIVE, LIVE + 1, LIVE + 2])
def test_few_images_are_scored_with_low_reliability(population, estimator, n):
    latents, _ = labelled_batch(n, 1)
    scores = score(latents, population, estimator=estimator)
    assert_valid(scores, n)
    assert scores.context.reliability == "low"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_constant_factor_is_informative(population, estimator):
    latents = population_latents(100, 5)
    latents[:, 0, 2] = 0.5
    latents[7, 0, 2] = 1.5
    scores = score(latents, population, estimator=estimator)
    assert_valid(scores, 100)
    # Shrinking towards a scaled identity inflates exactly the direction that tells.
    assert scores.rank[7] <= (10 if estimator in ("ledoit_wolf", "oas") else 1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_exact_duplicates_score_the_same(population, estimator):
    latents, _ = labelled_batch(60, 4)
    latents[10:30] = latents[9]
    scores = score(latents, population, estimator=estimator)
    assert_valid(scores, 60)
    np.testing.assert_allclose(scores.outlier_score[10:30], scores.outlier_score[9], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_batch_of_one_image_repeated(population, estimator):
    scores = score(np.repeat(population_latents(1), 30, axis=0), population, estimator=estimator)
    assert_valid(scores, 30)
    assert list(scores.rank) == list(range(1, 31))
    assert not scores.is_outlier.any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_dead_latents_never_drive_a_score(population, estimator):
    latents, _ = labelled_batch(80, 5)
    moved = latents.copy()
    moved[3, :, LIVE:] = 100.0
    np.testing.assert_array_equal(
        score(moved, population, estimator=estimator).outlier_score,
        score(latents, population, estimator=estimator).outlier_score,
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_model_without_live_latents_scores_all_alike(estimator):
    dead = as_latents(np.zeros((10, 3)))
    scores = score(dead, Population.from_latents(dead), estimator=estimator)
    assert len(np.unique(scores.outlier_score)) == 1
    assert list(scores.rank) == list(range(1, 11))
    assert not scores.is_outlier.any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_absurd_latents_stay_finite(population, estimator):
    latents, _ = labelled_batch(40, 2)
    latents[0] = 3e38
    latents[1] = -3e38
    assert_valid(score(latents, population, estimator=estimator), 40)


# --- reference contexts --------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("m", [1, 2, 4, 9, 100])
def test_against_a_reference_the_batch_does_not_matter(population, estimator, m):
    reference, _ = labelled_batch(m, 0, seed=3)
    latents, _ = labelled_batch(40, 20)
    whole = score(latents, population, estimator=estimator, reference=reference)
    assert_valid(whole, 40)
    assert whole.context.source == "reference"
    assert whole.context.size == m
    alone = score(latents[[7]], population, estimator=estimator, reference=reference)
    np.testing.assert_allclose(alone.outlier_score, whole.outlier_score[[7]], rtol=1e-9)
    np.testing.assert_allclose(alone.outlier_probability, whole.outlier_probability[[7]], rtol=1e-9)
    shuffled = score(latents, population, estimator=estimator, reference=reference[::-1])
    np.testing.assert_allclose(shuffled.outlier_score, whole.outlier_score, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_reference_mends_a_batch_of_mostly_outliers(population, estimator):
    reference, _ = labelled_batch(100, 0, seed=3)
    latents, truth = labelled_batch(100, 80)
    scores = score(latents, population, estimator=estimator, reference=reference)
    assert scores.outlier_score[truth].min() > np.median(scores.outlier_score[~truth])
    caught = 0.7 if estimator in ("ledoit_wolf", "oas") else 0.9
    assert scores.is_outlier[truth].mean() > caught
    assert scores.is_outlier[~truth].mean() <= 0.05


def test_an_empty_reference_is_refused(population):
    with pytest.raises(ContextTooSmall, match="0 images"):
        score(population_latents(3), population, reference=population_latents(0))


# --- flags and options ---------------------------------------------------------------------------


def test_the_threshold_decides_the_flags(population):
    latents, _ = labelled_batch()
    scores = score(latents, population, threshold=0.9)
    np.testing.assert_array_equal(scores.is_outlier, scores.outlier_probability > 0.9)


def test_false_discovery_flags_take_the_largest_set_within_the_rate():
    probability = np.array([0.2, 0.99, 0.9, 0.8, 0.97])
    rank = np.array([5, 1, 3, 4, 2])
    # running means of 1 - p down the ranks: .01, .02, .0467, .085, .228
    native = np.ones(5, dtype=bool)
    assert false_discovery_flags(probability, rank, 0.05, native).tolist() == [False, True, True, False, True]
    assert false_discovery_flags(probability, rank, 0.1, native).sum() == 4
    assert false_discovery_flags(probability, rank, 0.001, native).sum() == 0


def test_false_discovery_flags_no_image_that_is_more_probably_normal():
    probability = np.array([0.2, 0.99, 0.9, 0.8, 0.97])
    rank = np.array([5, 1, 3, 4, 2])
    flagged = false_discovery_flags(probability, rank, 1.0, np.ones(5, dtype=bool))
    assert flagged.tolist() == [False, True, True, True, True]


def test_foreign_images_do_not_pay_for_doubtful_ones():
    probability = np.array([1.0, 1.0, 1.0, 0.6, 0.3])
    rank, native = np.arange(1, 6), np.array([False, False, False, True, True])
    assert false_discovery_flags(probability, rank, 0.15, np.ones(5, dtype=bool)).sum() == 4
    assert false_discovery_flags(probability, rank, 0.15, native).sum() == 0
    assert false_discovery_flags(probability, rank, 0.4, native).tolist() == [False, False, False, True, False]


def test_fdr_replaces_the_threshold(population):
    latents, truth = labelled_batch()
    scores = score(latents, population, fdr=0.1, threshold=1.0)
    assert scores.is_outlier[truth].mean() > 0.8
    flagged = scores.rank[scores.is_outlier]
    assert sorted(flagged) == list(range(1, len(flagged) + 1))


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "chi2"},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"fdr": 0.0},
        {"fdr": 2.0},
        {"fdr": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(population, options):
    with pytest.raises(InvalidOption, match=next(iter(options))):
        score(population_latents(5), population, **options)


def test_wrong_shapes_and_values_are_refused(population):
    with pytest.raises(ShapeMismatch, match="latents"):
        score(np.zeros((4, 2, 3), np.float32), population)
    with pytest.raises(ShapeMismatch, match="reference"):
        score(population_latents(4), population, reference=np.zeros((4, 7), np.float32))
    broken = population_latents(4)
    broken[2, 0, 0] = np.nan
    with pytest.raises(InvalidInput, match="finite"):
        score(broken, population)


def test_inputs_are_left_alone(population):
    latents, _ = labelled_batch()
    before = latents.copy()
    location = population.location.copy()
    score(latents, population)
    np.testing.assert_array_equal(latents, before)
    np.testing.assert_array_equal(population.location, location)


def test_leave_one_out_in_a_response_is_the_seed_s_formula_to_the_last_digit(population):
    """Each image against mean and covariance (ddof 1) of the others, over the live latents, nothing added."""
    rng = np.random.default_rng(3)
    live = population.live_dims
    latents = np.zeros((60, 2, len(population.location)), dtype=np.float32)
    latents[:, 0] = rng.multivariate_normal(population.location, population.covariance, 60)
    mean = latents[:, 0, live].astype(np.float64)
    expected = []
    for row in range(60):
        others = np.delete(mean, row, axis=0)
        delta = mean[row] - others.mean(axis=0)
        expected.append(delta @ np.linalg.solve(np.cov(others, rowvar=False), delta))
    distances = score(latents, population, estimator="leave_one_out").mahalanobis_squared
    np.testing.assert_allclose(distances, expected, rtol=1e-9)


# Foreign images, and contexts fitted before


def test_a_foreign_image_ranks_first_is_flagged_and_leaves_the_context_as_it_is(served_bundle):
    population = served_bundle.population
    rng = np.random.default_rng(3)
    mean = rng.multivariate_normal(population.location, population.covariance, 60)
    mean[:, population.live_dims[0]] = 0.3
    mean[5, population.live_dims[0]] = 2.0
    latents = np.stack([mean, np.log(np.tile(population.posterior_variance, (60, 1)))], axis=1)
    strange = np.concatenate([latents, latents[:2]])  # latents that fit perfectly, of images that do not
    ood_ratio = np.r_[np.full(60, 0.5), 1.5, 9.0]
    for estimator in ("mixture", "robust", "leave_one_out", "ledoit_wolf"):
        scores = score(strange, population, estimator=estimator, ood_ratio=ood_ratio)
        alone = score(latents, population, estimator=estimator)
        assert scores.rank[[61, 60]].tolist() == [1, 2]
        assert scores.is_outlier[60:].all()
        assert (scores.outlier_probability[60:] == 1).all()
        np.testing.assert_array_equal(scores.context.location, alone.context.location)
        np.testing.assert_allclose(scores.outlier_score[:60], alone.outlier_score, rtol=1e-12)
        np.testing.assert_allclose(scores.outlier_probability[:60], alone.outlier_probability, rtol=1e-9, atol=1e-12)
        assert scores.context.contamination == pytest.approx(alone.context.contamination)


def test_a_foreign_image_outranks_one_that_is_further_out_than_any_scale(served_bundle):
    population = served_bundle.population
    mean = np.tile(population.location, (40, 1))
    mean[7, population.live_dims[0]] += 50  # among identical images: a published distance without a bound
    latents = np.stack([mean, np.log(np.tile(population.posterior_variance, (40, 1)))], axis=1)
    ood_ratio = np.full(40, 0.5)
    ood_ratio[3] = 1.1
    scores = score(latents, population, estimator="leave_one_out", ood_ratio=ood_ratio)
    assert scores.rank[[3, 7]].tolist() == [1, 2]
    assert scores.outlier_score[3] > scores.outlier_score[7] == scores.mahalanobis_squared[7]


def test_mostly_foreign_images_are_not_ranked_among_each_other(served_bundle):
    population = served_bundle.population
    latents = np.zeros((20, 2, served_bundle.manifest.latent_dim))
    ood_ratio = np.r_[np.full(8, 0.5), np.linspace(2, 50, 12)]
    scores = score(latents, population, ood_ratio=ood_ratio)
    assert len(set(scores.outlier_score[8:])) == 1
    assert scores.outlier_score[8] > scores.outlier_score[:8].max()
    half = score(latents, population, ood_ratio=np.where(np.arange(20) < 10, 0.5, ood_ratio))
    assert (np.diff(half.outlier_score[10:]) > 0).all()


def test_a_batch_of_foreign_images_is_compared_with_the_population(served_bundle):
    latents = np.zeros((5, 2, served_bundle.manifest.latent_dim))
    scores = score(latents, served_bundle.population, ood_ratio=np.full(5, 2.0))
    assert scores.context.source == "population"
    assert scores.is_outlier.all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_copy_with_less_than_the_encoder_s_noise_is_no_outlier(population, estimator):
    mean = np.repeat(np.full((1, LIVE + DEAD), 0.5), 31, axis=0)
    mean[-1, 0] += 0.04  # the posterior's standard deviation is 0.1
    scores = score(as_latents(mean), population, estimator=estimator)
    assert not scores.is_outlier.any()
    assert scores.outlier_probability[-1] < 0.3


@pytest.mark.parametrize("jitter", [0.0, 0.002, 0.01])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_near_copies_within_the_encoder_s_noise_are_no_outliers(population, estimator, jitter):
    random = np.random.default_rng(9)
    mean = np.repeat(random.standard_normal((1, LIVE + DEAD)), 40, axis=0)
    mean += jitter * random.standard_normal(mean.shape)
    mean[:3] += 0.02 * random.standard_normal((3, LIVE + DEAD))  # the posterior's standard deviation is 0.1
    scores = score(as_latents(mean), population, estimator=estimator)
    assert scores.outlier_probability.max() < 0.3


@pytest.mark.parametrize("size", [20, 50, 200])
def test_two_kinds_of_the_same_number_are_named_and_not_flagged(population, size):
    random = np.random.default_rng(size)
    mean = random.standard_normal((size, LIVE + DEAD))
    mean[:, :2] = np.where(np.arange(size)[:, None] % 2, 1.0, -1.0) + 0.1 * random.standard_normal((size, 2))
    scores = score(as_latents(mean), population)
    assert scores.is_outlier.mean() < 0.1
    (group,) = scores.groups
    assert abs(len(group.members) - size / 2) <= 1
    assert set(group.axes) <= {0, 1}
    assert scores.context.reliability == "low"
    assert any("two kinds" in warning for warning in scores.context.warnings)


@pytest.mark.parametrize(("size", "misfits"), [(50, 5), (50, 10), (50, 16), (350, 70), (350, 110)])
def test_misfits_of_one_cause_are_found_and_named(population, size, misfits):
    random = np.random.default_rng(size + misfits)
    mean = random.standard_normal((size, LIVE + DEAD))
    truth = np.arange(size) < misfits
    mean[:, :2] = [1.0, -1.0] + 0.05 * random.standard_normal((size, 2))
    mean[truth, 0] -= 1.5
    scores = score(as_latents(mean), population)
    assert scores.is_outlier[truth].mean() >= 0.95
    assert not scores.is_outlier[~truth].any()
    (group,) = scores.groups
    np.testing.assert_array_equal(group.members, np.flatnonzero(scores.is_outlier))
    assert group.axes[0] == 0
    assert group.are_misfits > 0.6


@pytest.mark.parametrize(
    ("size", "misfits", "false"), [(350, 122, 0.02), (350, 70, 0.02), (50, 10, 0.02), (50, 18, 0.07)]
)
def test_exceptions_to_a_rule_are_found(size, misfits, false):
    """Images of one level, and of three others: a factor that the population has in four levels, as a shape is."""
    random = np.random.default_rng(size + misfits)
    everything = random.standard_normal((4000, LIVE + DEAD))
    everything[:, 0] = 0.9 * np.arange(4000) % 4 - 1.35 + 0.04 * random.standard_normal(4000)
    everything[:, LIVE:] *= 0.03
    mean = everything[:size].copy()
    truth = np.arange(size) < misfits
    mean[:, 0] = np.where(truth, np.array([-1.35, -0.45, 1.35])[np.arange(size) % 3], 0.45)
    mean[:, 0] += 0.04 * random.standard_normal(size)
    scores = score(as_latents(mean), Population.from_latents(as_latents(everything)))
    assert scores.is_outlier[truth].mean() >= 0.95
    assert scores.is_outlier[~truth].mean() <= false
    (group,) = scores.groups
    np.testing.assert_array_equal(group.members, np.flatnonzero(truth))
    assert group.axes[0] == 0
    if group.are_misfits < CLEARLY_MISFITS:
        assert scores.context.reliability == "low"
        assert any("two kinds" in warning for warning in scores.context.warnings)


@pytest.mark.parametrize("misfits", [40, 70, 110])
def test_misfits_within_the_reach_of_what_is_normal_are_found_or_named(population, misfits):
    random = np.random.default_rng(misfits)
    mean = 0.5 * random.standard_normal((350, LIVE + DEAD))
    mean[:misfits, :LIVE] = 0.7 * random.choice([-1, 1], LIVE) + 0.07 * random.standard_normal((misfits, LIVE))
    scores = score(as_latents(mean), population)
    assert scores.is_outlier[:misfits].mean() > 0.95 or scores.context.reliability == "low"
    assert any(np.mean(group.members < misfits) > 0.8 for group in scores.groups)


def test_images_that_leave_no_batch_are_counted(population):
    latents = population_latents(5)
    for native, text in (
        (0, "5 of the 5 images look foreign, and none is left"),
        (1, "4 of the 5 images look foreign, and a"),
    ):
        context = score(latents, population, ood_ratio=np.r_[np.full(5 - native, 9.0), np.zeros(native)]).context
        assert (context.source, context.size, context.reliability) == ("population", 0, "low")
        assert [warning.startswith(text) for warning in context.warnings] == [True]
    (warning,) = score(latents[:1], population).context.warnings
    assert warning.startswith("One usable image has no batch")


def test_it_says_what_share_of_misfits_the_variation_of_a_batch_hides(population):
    """What the flags miss is known: so many images of the population pass for normal."""
    random = np.random.default_rng(3)
    varied = 0.45 * random.standard_normal((200, LIVE + DEAD))
    context = score(as_latents(varied), population).context
    assert context.reliability == "low"
    (warning,) = (text for text in context.warnings if text.startswith("Misfits may be missed"))
    said = float(re.search(r"(\d+)%", warning)[1]) / 100
    strangers = random.standard_normal((40, 1, LIVE + DEAD))
    passed = [not score(as_latents(np.concatenate([varied, each])), population).is_outlier[-1] for each in strangers]
    assert np.mean(passed) == pytest.approx(said, abs=0.2)

    narrow = varied.copy()
    narrow[:, :3] = 0.02 * random.standard_normal((200, 3))
    context = score(as_latents(narrow), population).context
    assert (context.reliability, context.warnings) == ("high", ())


@pytest.mark.parametrize("size", [60, 360])
def test_of_three_clumps_beside_a_few_outliers_none_is_called_misfits(population, size):
    """Two are apart over all latents together only, and outliers widen them: they must not pass for one."""
    random = np.random.default_rng(size)
    mean = np.zeros((size, LIVE + DEAD))
    mean[:, :LIVE] = np.array([[0.0] * LIVE, [0.5] * LIVE, [1.5, 0, 0, 0, -1.5]])[np.arange(size) % 3]
    mean[:, :LIVE] += 0.1 * random.standard_normal((size, LIVE))
    few = size // 20
    mean[:few, :LIVE] = np.array([-2, -2, 2, -2, 2]) + random.standard_normal((few, LIVE))
    scores = score(as_latents(mean), population)
    assert scores.is_outlier[:few].mean() > 0.5
    assert scores.is_outlier[few:].mean() < 0.05


@pytest.mark.parametrize("size", [20, 50, 350])
def test_the_less_a_batch_shows_the_more_probably_it_hides_a_misfit(population, size):
    """All images of a wide batch pass for normal; hardly any other passes for one that obeys a rule."""
    wide = population_latents(size, seed=size)
    ruled = wide.copy()
    ruled[:, 0, : LIVE - 1] *= 0.05
    hidden, shown = (score(latents, population) for latents in (wide, ruled))
    assert 0.02 < hidden.outlier_probability.min() < 0.15
    assert shown.outlier_probability.min() < 0.5 * hidden.outlier_probability.min()
    for scores in (hidden, shown):
        assert scores.context.contamination == pytest.approx(scores.outlier_probability.mean())
        assert (np.diff(scores.outlier_probability[np.argsort(scores.rank)]) <= 1e-12).all()


@pytest.mark.parametrize(("n", "misfits"), [(20, 5), (50, 18), (350, 122)])
def test_up_to_a_third_of_one_other_kind_is_found(population, n, misfits):
    """They share one wrong value, and vary as freely as the others otherwise."""
    for seed in range(4):
        latents = population_latents(n, seed=100 + seed)
        latents[:, 0, 1] = 0.5 + 0.03 * latents[:, 0, 1]
        latents[:misfits, 0, 1] -= 1.2
        scores = score(latents, population)
        assert scores.is_outlier[:misfits].mean() >= 0.9
        assert scores.is_outlier[misfits:].mean() <= 0.07
