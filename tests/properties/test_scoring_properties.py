from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.core.detect.estimators.classical import leave_one_out_distances
from service.core.detect.scoring import score
from service.core.population import Population
from service.core.types import EstimatorName

ESTIMATORS = get_args(EstimatorName)
LATENT_DIM = 4


def _population():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((500, LATENT_DIM)) * [1.0, 1.2, 0.8, 0.01]
    return Population.from_latents(np.stack([mean, np.full_like(mean, -4.0)], axis=1))


POPULATION = _population()
# Coarse values make ties, duplicates, constants and exact collinearity common.
coarse = st.integers(-3, 3).map(float)
wild = st.floats(-(2.0**100), 2.0**100, width=32)


def batches(values, most=40):
    shape = st.tuples(st.integers(1, most), st.just(2), st.just(LATENT_DIM))
    return arrays.arrays(np.float32, shape, elements=values)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(deadline=None, max_examples=40)
@given(latents=batches(coarse) | batches(wild))
def test_any_finite_latents_get_finite_scores(estimator, latents):
    scores = score(latents, POPULATION, estimator=estimator)
    assert np.isfinite(scores.outlier_score).all()
    assert np.isfinite(scores.mahalanobis_squared).all()
    assert (scores.mahalanobis_squared >= 0).all()
    assert ((scores.outlier_probability >= 0) & (scores.outlier_probability <= 1)).all()
    assert sorted(scores.rank) == list(range(1, len(latents) + 1))
    np.linalg.cholesky(scores.context.covariance)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(deadline=None, max_examples=30)
@given(latents=batches(st.floats(-3, 3, width=16)) | batches(coarse), seed=st.integers(0, 1000))
def test_scores_follow_the_images_through_any_permutation(estimator, latents, seed):
    order = np.random.default_rng(seed).permutation(len(latents))
    plain = score(latents, POPULATION, estimator=estimator)
    permuted = score(latents[order], POPULATION, estimator=estimator)
    np.testing.assert_allclose(permuted.outlier_score, plain.outlier_score[order], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(permuted.outlier_probability, plain.outlier_probability[order], rtol=1e-6, atol=1e-8)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(8, 60), d=st.integers(1, 5))
def test_leave_one_out_ignores_the_units_of_the_axes(seed, n, d):
    rng = np.random.default_rng(seed)
    points, units = rng.standard_normal((n, d)), rng.uniform(0.1, 10, d)
    floor = np.full(d, 0.01)
    np.testing.assert_allclose(
        leave_one_out_distances(points * units, floor * units**2),
        leave_one_out_distances(points, floor),
        rtol=1e-8,
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(deadline=None, max_examples=30)
@given(latents=batches(coarse), rate=st.floats(0.01, 0.99))
def test_a_looser_rate_flags_no_fewer(estimator, latents, rate):
    strict = score(latents, POPULATION, estimator=estimator, fdr=rate / 2).is_outlier
    loose = score(latents, POPULATION, estimator=estimator, fdr=rate).is_outlier
    assert (loose | ~strict).all()
