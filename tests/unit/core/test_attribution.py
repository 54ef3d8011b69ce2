"""Which latents set an image apart, by example."""

import numpy as np
from gaussian_fits import as_tuples

from service.core.detect import scoring
from service.core.explain.attribution import Attributions, attribute, groups, interactions, order
from service.core.explain.minimal_sets import minimal_sets, repair_z
from service.core.explain.reasons import sentences
from service.core.latent import Latent
from service.core.population import Population

LIVE = [1, 2, 4, 5]


def test_shares_explain_the_scores_that_are_served(batch, population):
    latents, scores = batch
    attributions = attribute(latents, scores.context, population)
    np.testing.assert_allclose(attributions.shapley.sum(axis=1), scores.mahalanobis_squared, rtol=1e-10)
    # A few sd from the population its far tail starts to count.
    usual = np.abs(latents[:, 0] - population.location)[:, LIVE].max(axis=1) < 2.5
    constant = (scores.outlier_score - attributions.shapley_odds.sum(axis=1))[usual]
    np.testing.assert_allclose(constant, constant[0], atol=1e-2)
    np.testing.assert_allclose(
        interactions(latents, scores.context, population).sum(axis=2), attributions.shapley, rtol=1e-9, atol=1e-9
    )


def test_the_changed_latents_are_named(batch, population, named):
    latents, scores = batch
    attributions = attribute(latents, scores.context, population)
    assert set(order(attributions, scores.context)[:10, 0]) <= {1, 4}
    assert (order(attributions, scores.context)[:5, 0] == 1).all()
    sets = minimal_sets(latents, scores.context, population)
    assert as_tuples(sets[:10]) == [(1,)] * 5 + [(1, 4)] * 5
    z = repair_z(latents, sets, scores.context, population)
    np.testing.assert_allclose(z[:5, 1], attributions.conditional_z[:5, 1], rtol=1e-9)
    reasons = sentences(sets, z, scores.is_outlier, named, scores.context)
    assert reasons[0] == f"object hue is {abs(z[0, 1]):.0f} sd from this batch; its other dims fit"
    assert reasons[5].startswith(("object hue and shape are ", "shape and object hue are "))
    assert reasons[-1] == "fits this batch"


def test_dead_latents_count_for_nothing_and_come_last(batch, population):
    latents, scores = batch
    strange = latents.copy()
    strange[:, :, [0, 3]] = 1e6
    attributions = attribute(strange, scores.context, population)
    np.testing.assert_array_equal(np.flatnonzero(attributions.dead), [0, 3])
    for terms in (attributions.shapley, attributions.shapley_odds, attributions.conditional_z, attributions.marginal_z):
        assert (terms[:, [0, 3]] == 0).all()
    assert not minimal_sets(strange, scores.context, population)[:, [0, 3]].any()
    np.testing.assert_array_equal(order(attributions, scores.context)[:, -2:], np.tile([0, 3], (200, 1)))


def test_order_follows_the_score_that_ranks(batch, population):
    latents, scores = batch
    terms = np.array([[0.0, 1.0, -3.0, 0.0, 2.0, 0.5]])
    zero = np.zeros((1, 6))
    dead = np.isin(np.arange(6), [0, 3])
    by_odds = order(Attributions(-terms, zero, terms, zero, zero, dead), scores.context)
    np.testing.assert_array_equal(by_odds, [[4, 1, 5, 2, 0, 3]])
    robust = scoring.score(latents, population, estimator="robust").context
    np.testing.assert_array_equal(order(Attributions(terms, -terms, -terms, zero, zero, dead), robust), by_odds)


def test_a_single_image_is_explained_by_its_distance_to_the_population(population):
    mean = population.location.copy()
    mean[5] += 6
    latents = np.stack([mean, np.full(6, -5.0)])[None]
    scores = scoring.score(latents, population)
    attributions = attribute(latents, scores.context, population)
    np.testing.assert_allclose(attributions.shapley_odds, 0, atol=1e-12)
    assert order(attributions, scores.context)[0, 0] == 5


def test_a_model_without_live_latents_explains_nothing():
    mean = np.random.default_rng(0).standard_normal((100, 3)) * 0.01
    latents = np.stack([mean, np.zeros_like(mean)], axis=1)
    population = Population.from_latents(latents)
    context = scoring.score(latents, population).context
    attributions = attribute(latents, context, population)
    assert attributions.dead.all()
    assert not attributions.shapley.any()
    sets = minimal_sets(latents, context, population)
    assert not sets.any()
    assert not repair_z(latents, sets, context, population).any()


def test_groups_add_up_the_latents_of_one_factor():
    latents = [
        Latent(index=0, name="hue", factor="hue", dead=False),
        Latent(index=1, name="latent 1 (dead)", dead=True),
        Latent(index=2, name="hue 2", factor="hue", dead=False),
        Latent(index=3, name="latent 3", dead=False),
    ]
    terms = np.array([[1.0, 0.0, 2.0, 4.0], [-1.0, 0.0, 0.5, 3.0]])
    by_factor = groups(terms, latents)
    assert list(by_factor) == ["hue", "latent 3"]
    np.testing.assert_array_equal(by_factor["hue"], [3.0, -0.5])
    np.testing.assert_array_equal(by_factor["latent 3"], [4.0, 3.0])
    np.testing.assert_array_equal(terms[0], [1.0, 0.0, 2.0, 4.0])
