"""Batches as wide as the learned population: by their distance and their error the strangers in them rank first."""

from dataclasses import replace

import numpy as np
import pytest

from service.core.detect.fit import fit
from service.core.detect.gaussian import Fit
from service.core.detect.moments import Moments
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from service.core.detect.wide_batch import (
    USUAL,
    WIDE,
    error_odds,
    is_wide,
    likeness,
    plain_fit,
    pool,
    usual_images,
)
from service.core.explain.attribution import attribute
from service.core.population import Population

AXES, KINDS = 8, 10
LOGVAR = np.log(0.3)
STRANGERS = 8


def with_variances(means):
    return np.stack([means, np.full_like(means, LOGVAR)], axis=1)


@pytest.fixture(scope="module")
def collection():
    """2,000 images of ten kinds: the means of their latents, and the population of them."""
    random = np.random.default_rng(0)
    centres = 1.2 * random.standard_normal((KINDS, AXES))
    means = centres[np.arange(2000) % KINDS] + 0.35 * random.gamma(4, 0.25, (2000, 1)) * random.standard_normal(
        (2000, AXES)
    )
    means = random.permutation(means)
    return means, Population.from_latents(with_variances(means), graded=True)


def whole(collection, seed=0, strangers=STRANGERS):
    """Return latents and errors of 400 images of all kinds, the last of which are strangers: alike, a little outside in
    the latents, and with larger errors than nearly all others; none is foreign.
    """
    random = np.random.default_rng(seed)
    means = collection[0][random.permutation(2000)[:400]].copy()
    error = 0.3 * np.exp(0.25 * random.standard_normal(400)).clip(0.5, 2)
    means[400 - strangers :] = means.mean(axis=0) + 1.5 + 0.3 * random.standard_normal((strangers, AXES))
    error[400 - strangers :] = random.uniform(0.75, 0.95, strangers)
    return with_variances(means), error


def scored(latents, population, error=None, **options):
    return score(latents, population, estimator="density_ratio", ood_ratio=error, error=error, **options)


def likeness_of(latents, population):
    units = PopulationUnits.of(population)
    return likeness(Moments.of(latents[:, 0]), np.exp(latents[:, 1]).mean(axis=0), units)


def test_all_kinds_together_are_wide_and_one_kind_is_not(collection):
    means, population = collection
    units = PopulationUnits.of(population)
    everything, _ = whole(collection, strangers=1)
    narrow = with_variances(means[np.linalg.norm(means - means[0], axis=1) < 1.8])
    assert len(narrow) > 50
    assert likeness_of(everything, population) > 0.9
    assert is_wide(everything, units)
    assert likeness_of(narrow, population) < 0.01
    assert not is_wide(narrow, units)


def test_few_images_and_other_bundles_are_never_wide(collection):
    means, population = collection
    few, enough = with_variances(means[: 2 * AXES]), with_variances(means[:300])
    by_rules = replace(population, graded=False)
    assert likeness_of(few, population) == 0
    assert not is_wide(few, PopulationUnits.of(population))
    assert likeness_of(enough, by_rules) == 0
    assert not is_wide(enough, PopulationUnits.of(by_rules))
    assert likeness(None, np.ones(AXES), PopulationUnits.of(population)) == 0


def test_nothing_is_wide_where_no_latent_varies():
    latents = with_variances(np.zeros((40, AXES)))
    population = Population.from_latents(latents, graded=True)
    assert not PopulationUnits.of(population).live.size
    assert not is_wide(latents, PopulationUnits.of(population))
    assert likeness_of(latents, population) == 0
    assert np.isfinite(scored(latents, population, np.full(40, 0.3)).outlier_score).all()


def test_plain_moments_are_those_of_the_points(collection):
    means, population = collection
    units = PopulationUnits.of(population)
    plain = plain_fit(Moments.of(means[:300]), units)
    points = units.points(means[:300])
    np.testing.assert_allclose(plain.location, points.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(plain.covariance, np.cov(points, rowvar=False), atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_pooled_moments_are_those_of_both_together(share):
    random = np.random.default_rng(0)
    first, other = random.standard_normal((2, 4000, 3)) * [[[1.0, 2.0, 3.0]], [[3.0, 1.0, 0.5]]] + [[[0]], [[2]]]
    fits = [Fit(each.mean(axis=0), np.cov(each, rowvar=False, ddof=0)) for each in (first, other)]
    pooled = pool(*fits, share)
    weights = np.repeat([(1 - share), share], 4000)
    both = np.concatenate([first, other])
    np.testing.assert_allclose(pooled.location, np.average(both, axis=0, weights=weights))
    np.testing.assert_allclose(pooled.covariance, np.cov(both, rowvar=False, ddof=0, aweights=weights), rtol=1e-9)


def draw_errors(directions, count=4000, seed=0):
    """Return means of squares in so many directions of unit variance: chi-squared over their number."""
    return np.random.default_rng(seed).chisquare(directions, count) / directions


@pytest.mark.parametrize("directions", [20, 60])
@pytest.mark.parametrize("axes", [10, 22])
def test_beside_gaussian_distances_errors_count_as_half_a_squared_distance_of_their_own(directions, axes):
    error, distance = draw_errors(directions, 40_000), axes * draw_errors(axes, 40_000, seed=1)
    odds = error_odds(error, distance)
    expected = directions / 2 * (error - np.median(error))
    slope = (odds @ expected) / (expected @ expected)
    assert slope == pytest.approx(1, abs=0.15)
    assert np.median(odds) == pytest.approx(0, abs=0.01)
    np.testing.assert_array_equal(np.argsort(odds, kind="stable"), np.argsort(error, kind="stable"))


def test_errors_count_for_more_beside_distances_with_heavy_tails():
    error, distance = draw_errors(40), 20 * draw_errors(20, seed=1)
    heavy = distance * np.random.default_rng(2).chisquare(3, 4000) / 3
    heavy *= np.median(distance) / np.median(heavy)
    assert (error_odds(error, heavy) / error_odds(error, distance)).min() > 2


def test_strangers_and_the_smallest_errors_do_not_change_how_errors_count():
    """Kinds may differ in how close they lie to what is learned: that half of the errors is smaller says nothing."""
    error, distance = draw_errors(40), 20 * draw_errors(20, seed=1)
    smaller = np.where(error < np.quantile(error, 0.45), error / 5, error)
    strange = np.where(np.arange(4000) < 40, 3.0, error)
    large = error > np.median(error)
    np.testing.assert_allclose(error_odds(smaller, distance)[large], error_odds(error, distance)[large], rtol=0.01)
    np.testing.assert_allclose(error_odds(strange, distance)[40:], error_odds(error, distance)[40:], rtol=0.1, atol=0.5)


def test_equal_errors_say_nothing():
    distance = draw_errors(20)
    np.testing.assert_allclose(error_odds(np.full(20, 0.3), distance), 0, atol=1e-12)
    assert np.isfinite(error_odds(np.zeros(20), distance)).all()
    assert np.isfinite(error_odds(draw_errors(20), np.zeros(20))).all()


def test_usual_images_are_the_native_ones_with_the_smallest_errors():
    error, native = np.arange(100.0), np.arange(100) >= 20
    usual = usual_images(native, error)
    assert usual.sum() == USUAL * native.sum()
    assert error[usual].max() < error[native & ~usual].min()
    np.testing.assert_array_equal(usual_images(native, None), native)
    assert not usual_images(np.zeros(100, dtype=bool), error).any()


def test_strangers_that_are_alike_rank_first_although_nothing_is_flagged(collection):
    by_both, by_latents = [], []
    for seed in range(4):
        latents, error = whole(collection, seed)
        result = scored(latents, collection[1], error)
        by_both.append((result.rank[-STRANGERS:] <= STRANGERS).mean())
        by_latents.append((scored(latents, collection[1]).rank[-STRANGERS:] <= STRANGERS).mean())
        assert not result.is_outlier.any()
        assert np.median(result.outlier_score) == pytest.approx(0, abs=0.5)
    assert np.mean(by_both) > 0.9
    assert np.mean(by_latents) < np.mean(by_both)


def test_what_is_usual_is_told_by_the_images_with_the_smallest_errors(collection):
    latents, error = whole(collection)
    assert scored(latents, collection[1], error).context.size == 0.95 * len(latents)
    assert scored(latents, collection[1]).context.size == len(latents)


def test_foreign_images_rank_before_all_others(collection):
    latents, error = whole(collection)
    error[:2] = 1.5, 3.0
    result = scored(latents, collection[1], error)
    assert result.rank[:2].tolist() == [2, 1]
    assert result.is_outlier.sum() == 2


def test_what_is_nearly_foreign_by_a_property_ranks_by_its_own_error_among_the_others(collection):
    """Properties tell who is foreign and who takes part in the context. They are latents, and count as such."""
    latents, error = whole(collection)
    by_property = np.maximum(error, np.where(np.arange(400) < 30, 0.9, 0.0))
    result = score(latents, collection[1], estimator="density_ratio", ood_ratio=by_property, error=error)
    assert (result.rank[-STRANGERS:] <= STRANGERS).mean() > 0.8
    assert (result.rank[:30] > 100).mean() > 0.5


def test_the_order_of_a_wide_batch_changes_nothing(collection):
    latents, error = whole(collection)
    order = np.random.default_rng(1).permutation(len(latents))
    first, again = scored(latents, collection[1], error), scored(latents[order], collection[1], error[order])
    np.testing.assert_allclose(first.outlier_score[order], again.outlier_score, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(first.rank[order], again.rank)


def test_attributions_add_up_to_what_is_not_the_error(collection):
    latents, error = whole(collection)
    result = scored(latents, collection[1], error)
    context = result.context
    terms = attribute(latents, context, collection[1])
    alike = likeness(context.moments, context.posterior_variance, PopulationUnits.of(collection[1]))
    assert alike >= WIDE
    np.testing.assert_allclose(result.by_error, alike * error_odds(error, result.mahalanobis_squared))
    rest = result.outlier_score - result.by_error
    span = np.ptp(result.outlier_score)
    np.testing.assert_allclose(np.ptp(terms.shapley_odds.sum(axis=1) - rest), 0, atol=1e-6 * span)


def test_errors_do_not_count_in_a_narrow_batch_or_against_a_reference(collection):
    means, population = collection
    random = np.random.default_rng(0)
    narrow = with_variances(means[np.linalg.norm(means - means[0], axis=1) < 1.8][:60])
    error = random.uniform(0.1, 0.9, len(narrow))
    result = scored(narrow, population, error)
    np.testing.assert_array_equal(result.outlier_score, scored(narrow, population).outlier_score)
    assert not result.by_error.any()
    latents, error = whole(collection)
    reference = with_variances(means[random.permutation(2000)[:300]])
    with_errors = scored(latents, population, error, reference=reference).outlier_score
    np.testing.assert_array_equal(with_errors, scored(latents, population, reference=reference).outlier_score)


def test_a_wide_context_is_centred_on_all_that_it_was_fitted_to(collection):
    """Neither the mixture's normal part nor the nearer half is more normal than the rest."""
    means, population = collection
    latents = with_variances(means[:600])
    context = fit(latents, population, estimator="density_ratio", source="batch")
    units = PopulationUnits.of(population)
    location, covariance = units.in_units(context)
    np.testing.assert_allclose(location, units.points(latents).mean(axis=0), atol=0.1)
    np.testing.assert_allclose(
        np.trace(covariance), np.trace(np.cov(units.points(latents), rowvar=False)), rtol=0.15
    )  # the noise floor is in it
