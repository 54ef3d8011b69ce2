"""The registry: it knows every estimator that a request may name, and each keeps its protocol."""

from typing import get_args

import numpy as np
import pytest

from service.core.detect.estimators.registry import ESTIMATORS, estimator_named, estimator_of
from service.core.detect.fit import fit, merge
from service.core.detect.gaussian import Fit
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import EstimatorName
from service.errors import InvalidOption
from service.protos.misfit.v1 import misfit_pb2 as pb

D, N = 4, 40


@pytest.fixture
def population() -> Population:
    random = np.random.default_rng(1)
    latents = np.stack([random.normal(size=(2000, D)), np.full((2000, D), -4.0)], axis=1)
    return Population.from_latents(latents)


@pytest.fixture
def latents() -> np.ndarray:
    random = np.random.default_rng(2)
    return np.stack([0.3 * random.normal(size=(N, D)) + 1, np.full((N, D), -4.0)], axis=1)


def test_the_registry_knows_the_names_that_requests_may_have():
    assert tuple(ESTIMATORS) == get_args(EstimatorName)
    enum = pb.Estimator.keys()
    assert {f"ESTIMATOR_{name.upper()}" for name in ESTIMATORS} == set(enum) - {"ESTIMATOR_UNSPECIFIED"}
    with pytest.raises(InvalidOption, match="'best', expected one of ensemble, density_ratio, "):
        estimator_named("best")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_keeps_the_protocol(name, population, latents):
    context = fit(latents, population, estimator=name, source="batch")
    estimator, units = estimator_of(context), PopulationUnits.of(population)
    points = units.points(latents)
    assert estimator is ESTIMATORS[name]
    result = estimator.fit(points, np.full(D, 0.01), Fit(np.zeros(D), np.eye(D)))
    assert result.location.shape == (D,)
    assert np.linalg.eigvalsh(result.covariance).min() > 0
    distances = estimator.distances(points, context, units, np.ones(N, dtype=bool))
    odds = estimator.log_odds(points, context, units)
    assert distances.shape == odds.shape == (N,)
    assert (distances >= 0).all()
    assert estimator.shapley_odds(points, context, units).shape == (N, D)
    assert (context.kernel is not None) == estimator.compares_images
    scores = score(latents, population, estimator=name)
    if estimator.ranks_by_odds:
        np.testing.assert_allclose(np.ptp(scores.outlier_score - odds), 0, atol=1e-9)
        assert (np.diff(scores.outlier_probability[np.argsort(scores.outlier_score)]) >= 0).all()
    else:
        np.testing.assert_array_equal(scores.outlier_score, distances)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_shapley_values_sum_to_the_log_odds_but_for_a_constant(name, population, latents):
    context, units = fit(latents, population, estimator=name), PopulationUnits.of(population)
    points, estimator = units.points(latents), ESTIMATORS[name]
    rest = estimator.log_odds(points, context, units) - estimator.shapley_odds(points, context, units).sum(axis=1)
    assert np.ptp(rest) < 2e-2  # the far tail belongs to no latent, and kernels are computed in float32


def test_a_merged_context_has_the_moments_estimator(population, latents):
    context = merge([fit(latents[:20], population), fit(latents[20:], population)], population)
    estimator = estimator_of(context)
    assert (context.estimator, estimator.ranks_by_odds, estimator.compares_images) == ("moments", True, False)


@pytest.mark.parametrize("copies", [5, 12, 19])
def test_copies_of_a_misfit_do_not_vouch_for_each_other(copies, population, latents):
    batch = np.concatenate([latents[:35], np.repeat(-latents[:1], copies, axis=0)])
    scores = score(batch, population)
    assert scores.rank[:35].min() > copies
    assert scores.is_outlier[35:].all()
    assert not scores.is_outlier[:35].any()


def test_most_of_a_batch_may_be_copies(population, latents):
    batch = np.concatenate([np.repeat(latents[:1], 40, axis=0), -latents[:2]])
    scores = score(batch, population)
    assert sorted(scores.rank[40:]) == [1, 2]
    assert not scores.is_outlier[:40].any()


def test_the_odds_of_a_context_as_wide_as_the_population_are_distances(population):
    random = np.random.default_rng(7)
    wide = np.stack([random.normal(size=(300, D)), np.full((300, D), -4.0)], axis=1)
    wide[:6, 0] *= 4 / np.linalg.norm(wide[:6, 0], axis=1, keepdims=True) * 1.4
    scores = score(wide, population)
    assert set(np.argsort(scores.rank)[:6]) == set(range(6))
    assert (scores.outlier_probability[6:] < 0.5).all()


@pytest.mark.parametrize("copies", [0, 5])
def test_ensemble_scores_the_images_while_it_is_fitted(population, latents, copies):
    latents = np.concatenate([latents, latents[:copies]])
    context, units = fit(latents, population, estimator="ensemble", source="batch"), PopulationUnits.of(population)
    scores = estimator_of(context).log_odds(units.points(latents), context, units)
    np.testing.assert_allclose(context.scores, scores)
    others = estimator_of(context).log_odds(units.draws, context, units)
    np.testing.assert_allclose(context.population_scores, others)
