import numpy as np
import pytest

from service.core.population import Population
from train.benchmarks.contexts import (
    HUES,
    LEVELS,
    SHAPE,
    SPHERE,
    STRATA,
    evaluate,
    oracle_odds,
    sample,
    sample_seed_case,
    seed_case,
    summarize,
)


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).integers(0, LEVELS, (60_000, 6))


@pytest.fixture(scope="module")
def latents(factors):
    """Six informative latents, one a factor, and a dead one."""
    rng = np.random.default_rng(1)
    mean = np.zeros((len(factors), 7))
    mean[:, :6] = (factors - (LEVELS - 1) / 2) / (LEVELS / 3.5) + 0.05 * rng.standard_normal(factors.shape)
    return np.stack([mean, np.full_like(mean, -5.0)], axis=1).astype(np.float32)


@pytest.mark.parametrize("stratum", STRATA)
def test_every_stratum_breaks_the_rule_in_its_own_way(factors, stratum):
    rng = np.random.default_rng(2)
    for _ in range(20):
        context = sample(factors, rng, size=60, outliers=9, stratum=stratum)
        assert len(set(context.rows)) == (52 if stratum == "copies" else 60)
        assert context.is_outlier.sum() == 9
        inliers, outliers = factors[context.rows[~context.is_outlier]], factors[context.rows[context.is_outlier]]
        assert np.isin(context.rows[~context.is_outlier], context.inlier_pool).all()
        pool = factors[context.inlier_pool]
        fixed = np.flatnonzero((pool == pool[0]).all(axis=0))
        assert 1 <= len(fixed) <= 4
        assert (inliers[:, fixed] == pool[0, fixed]).all()
        differs = outliers[:, fixed] != pool[0, fixed]
        assert differs.any(axis=1).all()
        if stratum in ("common_cause", "copies"):
            assert (outliers[:, fixed] == outliers[0, fixed]).all()
        elif stratum != "any_difference":
            assert (differs.sum(axis=1) == 1).all()
        if stratum == "shape_only":
            assert (outliers[:, SHAPE] != pool[0, SHAPE]).all()
        if stratum == "adjacent_level":
            factor = fixed[differs.argmax(axis=1)]
            distance = np.abs(outliers[np.arange(9), factor] - pool[0, factor])
            distance = np.where(np.isin(factor, HUES), np.minimum(distance, 10 - distance), distance)
            assert (distance[factor != SHAPE] == 1).all()


def test_the_same_seed_draws_the_same_context(factors):
    first, second = (sample(factors, np.random.default_rng(3), size=50, outliers=5) for _ in range(2))
    np.testing.assert_array_equal(first.rows, second.rows)


def test_the_seed_case_is_what_was_published(factors):
    context = sample_seed_case(factors, np.random.default_rng(4))
    inliers = factors[context.rows[~context.is_outlier]]
    assert len(context.rows) == 350
    assert context.is_outlier.sum() == 25
    assert (inliers[:, SHAPE] == SPHERE).all()
    assert (inliers[:, 1:3] == inliers[0, 1:3]).all()
    assert all(len(set(inliers[:, free])) > 1 for free in (0, 3, 5))


def test_impossible_contexts_are_refused(factors):
    with pytest.raises(ValueError, match="outliers"):
        sample(factors, np.random.default_rng(0), size=10, outliers=11)


def test_summary_brackets_the_mean():
    result = summarize([0.5, *np.full(9, 1.0)])
    assert result["mean"] == pytest.approx(0.95)
    assert result["worst_decile"] == result["minimum"] == 0.5
    assert result["low"] < 0.95 < result["high"]


def test_informative_latents_reach_the_oracle(factors, latents):
    population = Population.from_latents(latents)
    report = seed_case(latents, factors, population, draws=5)
    assert report["contexts"] == 5
    assert report["auroc"]["mean"] > 0.99
    assert report["oracle_auroc"]["mean"] > 0.99
    assert report["false_flag_rate"] < 0.01
    assert report == seed_case(latents, factors, population, draws=5)
    assert report["auroc"] != seed_case(latents, factors, population, draws=5, estimator="leave_one_out")["auroc"]


def test_clean_contexts_report_false_flags_only(factors, latents):
    contexts = [sample(factors, np.random.default_rng(5), size=50, outliers=0)]
    report = evaluate(latents, Population.from_latents(latents), contexts)
    assert "auroc" not in report
    assert 0 <= report["false_flag_rate"] < 0.1


def test_the_oracle_prefers_the_truth(factors, latents):
    context = sample(factors, np.random.default_rng(6), size=50, outliers=10, fixed=(0, 5))
    odds = oracle_odds(latents, context, Population.from_latents(latents))
    assert odds[context.is_outlier].min() > np.median(odds[~context.is_outlier])
