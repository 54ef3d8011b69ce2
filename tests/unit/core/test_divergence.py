"""The divergence of a context from the population, and what the default estimator makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from service.core.detect.divergence import Divergence, left_out_distances
from service.core.detect.estimators.registry import estimator_of
from service.core.detect.fit import fit
from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import background_fit, normal_fit
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population

D = 4


@pytest.fixture(scope="module")
def population():
    random = np.random.default_rng(1)
    return Population.from_latents(with_logvar(random.normal(size=(2000, D))))


def with_logvar(points):
    return np.stack([points, np.full(points.shape, -4.0)], axis=1)


def points_of(spread, seed=2, size=60):
    return spread * np.random.default_rng(seed).normal(size=(size, D))


def test_left_out_distances_are_near_those_to_the_moments_of_the_others():
    points = points_of(1.0)
    everyone = Fit(points.mean(axis=0), np.cov(points, rowvar=False))
    approximate = left_out_distances(everyone.distances(points), len(points))
    for place, distance in enumerate(approximate):
        others = np.delete(points, place, axis=0)
        exact = Fit(others.mean(axis=0), np.cov(others, rowvar=False)).distances(points[place : place + 1])[0]
        assert distance == pytest.approx(exact, rel=0.05)


def test_a_divergence_is_the_difference_of_bounded_means():
    ratios, left_out, population = np.array([1.0, 3.0]), np.array([0.5, 2.0]), np.array([-1.0, -50.0, 0.0])
    divergence = Divergence.of(ratios, left_out, population)
    own, others, theirs = (np.log((1 + np.exp(values)) / 2) for values in (ratios, left_out, population))
    assert divergence.nats == pytest.approx((own.mean() + others.mean()) / 2 - theirs.mean())
    assert divergence.error == pytest.approx(own.std() / np.sqrt(2))
    # An image however far off takes no more than log 2 away.
    far = Divergence.of(np.append(ratios, -1e4), np.append(left_out, -1e4), population)
    assert far.nats > divergence.nats * 2 / 3 - np.log(2)


def test_weights_rise_with_the_divergence_from_0_to_1():
    weights = np.array(
        [(each.certainty, each.narrowness(D)) for each in (Divergence(nats, 0.05) for nats in np.linspace(-1, 5, 601))]
    )
    assert (np.diff(weights, axis=0) >= 0).all()
    assert np.diff(weights, axis=0).max() < 0.06  # there is no step
    np.testing.assert_array_equal(weights[0], 0)
    assert (weights[-1] > 0.99).all()
    assert Divergence(0.0, 0.0).certainty == 0
    assert Divergence(0.1, 0.0).certainty == 1


def test_a_narrow_context_lies_further_from_the_population(population):
    wide, middle, narrow = (fit(with_logvar(points_of(spread)), population).divergence for spread in (1.0, 0.5, 0.1))
    assert wide.nats < middle.nats < narrow.nats
    assert wide.certainty < 0.5
    assert narrow.certainty > 0.99


def test_a_divergence_does_not_depend_on_the_order_of_images(population):
    latents = with_logvar(points_of(0.4))
    turned = latents[np.random.default_rng(3).permutation(len(latents))]
    assert fit(latents, population).divergence == fit(turned, population).divergence


def test_only_the_default_estimator_measures_it(population):
    latents = with_logvar(points_of(0.4))
    for name in ("density_ratio", "mixture", "robust"):
        assert fit(latents, population, estimator=name).divergence is None
    assert fit(latents[:2], population).divergence is None


@pytest.mark.parametrize("nats", [-0.1, 0.1, 0.5, 5.0])
def test_odds_are_the_weighted_mean_that_the_divergence_sets(population, nats):
    latents = with_logvar(points_of(0.4))
    units = PopulationUnits.of(population)
    points = units.points(latents)
    divergence = Divergence(nats, 0.1)
    context = replace(fit(latents, population), divergence=divergence)
    estimator = estimator_of(context)
    ratio = super(type(estimator), estimator).log_odds(points, context, units)
    normal, background = normal_fit(context, units), background_fit(context, units)
    mixture, robust = (background.log_density(points) - each.log_density(points) for each in (normal, context.robust))
    weight = 0.2 * divergence.narrowness(D)
    pooled = (1 - 2 * weight) * ratio + weight * (mixture + robust)
    distance = (normal.distances(points) + context.robust.distances(points)) / 4
    expected = divergence.certainty * pooled + (1 - divergence.certainty) * distance
    np.testing.assert_allclose(estimator.log_odds(points, context, units), expected)


@pytest.mark.parametrize("nats", [-0.1, 0.1, 0.5, 5.0])
def test_attributions_add_up_whatever_the_divergence(population, nats):
    latents = with_logvar(points_of(0.4))
    units = PopulationUnits.of(population)
    points = units.points(latents)
    context = replace(fit(latents, population), divergence=Divergence(nats, 0.1))
    estimator = estimator_of(context)
    rest = estimator.log_odds(points, context, units) - estimator.shapley_odds(points, context, units).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-6)  # kernels are of float32
