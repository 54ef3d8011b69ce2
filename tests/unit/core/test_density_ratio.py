"""The density ratio of context to population, where a single Gaussian has no answer: clumps, rings, free axes."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from service.core.decide.calibration import calibrate
from service.core.detect import density_ratio
from service.core.detect.density_ratio import (
    BASE_WEIGHT,
    MOST_IMAGES,
    choose_bandwidths,
    fit_kernel,
    log_ratios,
)

RESOLUTION = np.array([0.02, 0.02, 0.05, 0.1])


def population(n, seed):
    """A factor of ten clumps; one of four; a smooth one; and one that is folded: it shows as plus or minus itself."""
    rng = np.random.default_rng(seed)
    levels = np.stack([rng.integers(0, 10, n), rng.integers(0, 4, n), np.zeros(n), rng.integers(0, 8, n)], axis=1)
    points = np.stack(
        [
            (levels[:, 0] - 4.5) / 3 + 0.005 * rng.standard_normal(n),
            levels[:, 1] - 1.5 + 0.01 * rng.standard_normal(n),
            rng.standard_normal(n),
            rng.choice([-1, 1], n) * (0.2 + 0.2 * levels[:, 3]) + 0.02 * rng.standard_normal(n),
        ],
        axis=1,
    )
    return points, levels.astype(int)


SAMPLE = population(2_000, 99)[0]


def context(n, outliers, seed, axis, level):
    """n points, of which all but `outliers` have `level` on `axis`."""
    points, levels = population(200 * n, seed)
    inside = np.flatnonzero(levels[:, axis] == level)[: n - outliers]
    outside = np.flatnonzero(levels[:, axis] != level)[:outliers]
    rows = np.random.default_rng(seed).permutation(np.concatenate([inside, outside]))
    return points[rows], levels[rows, axis] != level


def odds(points):
    """Of the context's own points, with Gaussians that say nothing."""
    kernel = fit_kernel(points, RESOLUTION, SAMPLE, np.zeros(len(points)))
    return odds_in(kernel, points), kernel


def odds_in(kernel, points):
    return -log_ratios(points, kernel, SAMPLE, np.zeros(len(points)))


def flags(points):
    scores, kernel = odds(points)
    calibration = calibrate(scores, odds_in(kernel, SAMPLE[::8]), 0.15)
    return calibration.log_odds(scores, calibration.share) > 0


@pytest.mark.parametrize(("axis", "level"), [(0, 3), (1, 1), (3, 0), (3, 6)])
@pytest.mark.parametrize(("n", "outliers"), [(50, 4), (350, 25), (350, 90)])
def test_what_breaks_the_rule_ranks_first_even_where_inliers_form_two_clumps(n, outliers, axis, level):
    points, truth = context(n, outliers, 1, axis, level)
    scores, _ = odds(points)
    assert roc_auc_score(truth, scores) > 0.97
    assert flags(points)[~truth].mean() < 0.03


@pytest.mark.parametrize(("axis", "level"), [(0, 5), (1, 1), (3, 2)])
def test_only_the_axes_that_the_rule_narrows_count(axis, level):
    has_bandwidth = [
        np.isfinite(choose_bandwidths(context(350, 25, s, axis, level)[0], RESOLUTION, SAMPLE)) for s in range(8)
    ]
    assert np.mean(has_bandwidth, axis=0)[axis] == 1
    assert np.delete(np.mean(has_bandwidth, axis=0), axis).max() < 0.6


@pytest.mark.parametrize("n", [20, 50, 350])
def test_a_batch_like_the_population_has_few_outliers(n):
    flagged = [flags(population(n, seed)[0]).mean() for seed in range(10)]
    assert np.mean(flagged) < 0.02


def test_an_image_is_not_its_own_neighbour():
    points, _ = context(100, 0, 3, 0, 5)
    points[0] = [1.5 + 1 / 6, 0, 0, 0]  # where nobody else of the population is
    scores, kernel = odds(points)
    assert scores[0] == scores.max()
    assert flags(points)[0]
    # The same image again counts as itself, another one next to it has it for a neighbour.
    assert odds_in(kernel, points[:1])[0] == scores[0]
    assert odds_in(kernel, points[:1] + 0.002)[0] < scores[0]


def test_where_neighbours_are_too_few_the_gaussians_decide():
    points, truth = context(50, 4, 5, 0, 3)
    far = np.where(truth, -6.0, 2.0)
    kernel = fit_kernel(points, RESOLUTION, SAMPLE, far)
    alone = log_ratios(points + 50, kernel, SAMPLE, far)
    np.testing.assert_allclose(alone, far + np.log(BASE_WEIGHT / (kernel.weights.sum() + BASE_WEIGHT)))


def test_of_two_images_that_have_nothing_in_common_with_the_context_the_further_one_ranks_first():
    points, _ = context(50, 4, 5, 0, 3)
    kernel = fit_kernel(points, RESOLUTION, SAMPLE, np.zeros(len(points)))
    base = np.array([-290.0, -310.0, -500.0, -5e3, -5e5])
    ratios = log_ratios(points[:5] + 50, kernel, SAMPLE, base)
    assert (np.diff(ratios) < 0).all()
    assert ratios[0] - ratios[-1] < 30


def test_others_are_scored_as_members_are():
    points, _ = context(300, 20, 4, 3, 2)
    _, kernel = odds(points)
    others, truth = context(200, 60, 5, 3, 2)
    assert roc_auc_score(truth, odds_in(kernel, others)) > 0.97


def test_order_does_not_matter_once_it_is_canonical():
    points, _ = context(120, 9, 6, 1, 2)
    shuffled = points[np.random.default_rng(0).permutation(len(points))]
    first, second = (each[np.lexsort(each.T)] for each in (points, shuffled))
    np.testing.assert_array_equal(odds(first)[0], odds(second)[0])


def test_more_images_than_a_context_keeps_are_all_scored():
    points, truth = context(1_000, 70, 7, 3, 1)
    scores, kernel = odds(points)
    assert len(kernel.points) <= MOST_IMAGES
    assert roc_auc_score(truth, scores) > 0.97


def test_a_stream_of_many_images_takes_little_memory():
    points = np.random.default_rng(0).standard_normal((50_000, 10))
    points[:, :3] *= 0.1
    sample = np.random.default_rng(1).standard_normal((1000, 10))
    tracemalloc.start()
    try:
        kernel = fit_kernel(points, np.full(10, 0.1), sample, np.zeros(len(points)))
        log_ratios(points, kernel, sample, np.zeros(len(points)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * 2**20


def test_no_images_have_no_ratios():
    points, _ = context(50, 4, 1, 0, 3)
    kernel = fit_kernel(points, RESOLUTION, SAMPLE, np.zeros(len(points)))
    assert log_ratios(points[:0], kernel, SAMPLE, np.zeros(0)).shape == (0,)


def test_duplicates_and_constants_stay_finite():
    points = np.repeat(SAMPLE[:1], 30, axis=0)
    scores, _ = odds(points)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) < 1e-9
    assert not flags(points).any()


@pytest.mark.parametrize("axes", [1, 10, 22, 64, 300])
def test_the_search_for_bandwidths_takes_no_more_memory_on_many_axes(axes):
    for images in (20, 350, 10_000, 10**6):
        searched = density_ratio.count_searched(images, axes)
        kernels = searched * (3 * searched + 2 * density_ratio.SEARCH_SAMPLE) * axes * (density_ratio.DOUBLINGS + 1)
        assert 4 * kernels <= density_ratio.SEARCH_BYTES
        assert searched >= 20
    assert density_ratio.count_searched(350, 10) == 68


def test_kernels_and_density_are_those_of_the_formula_and_free_axes_say_nothing():
    rng = np.random.default_rng(3)
    points, others, bandwidth = rng.standard_normal((7, 4)), rng.standard_normal((20, 4)), np.array([0.5, np.inf, 2, 1])
    kernels = np.exp(-0.5 * np.square((points[:, None] - others) / bandwidth).sum(axis=2))
    np.testing.assert_allclose(density_ratio.kernels_between(points, others, bandwidth), kernels, rtol=1e-5)
    np.testing.assert_allclose(
        density_ratio.population_density(points, others, bandwidth), np.maximum(kernels.mean(axis=1), 1 / 20), rtol=1e-5
    )
    free = np.full(4, np.inf)
    assert (density_ratio.kernels_between(points, others, free) == 1).all()
    assert (density_ratio.population_density(points, others, free) == 1).all()
