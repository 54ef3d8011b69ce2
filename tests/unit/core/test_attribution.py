"""Why an image does not fit: sets, deviations and sentences by example, naive searches beside the fast ones."""

from itertools import combinations

import numpy as np
import pytest

from service.core.detect import fit, posterior, scoring
from service.core.detect.gaussian import Fit, mahalanobis_squared
from service.core.explain.attribution import Attributions, attribute, groups, interactions, order
from service.core.explain.minimal_sets import minimal_sets, repair_deviations, repair_z, smallest_sets
from service.core.explain.reasons import sentence, sentences
from service.core.explain.shapley_gaussian import conditional_z, marginal_z, shapley_odds
from service.core.latent import Latent
from service.core.population import Population

NAMES = ["latent 0 (dead)", "object hue", "scale", "latent 3 (dead)", "shape", "wall hue"]
LIVE = [1, 2, 4, 5]


def fit_of(d, seed):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d + 2))
    return Fit(rng.standard_normal(d), root @ root.T / d + 0.05 * np.eye(d))


def points_about(fit, n, seed, spread=3.0):
    return fit.location + spread * np.random.default_rng(seed).standard_normal((n, len(fit.location)))


def within(fit, radius_squared):
    return lambda points: mahalanobis_squared(points, fit.location, fit.covariance) <= radius_squared


def repair(point, dims, fit):
    """`point` (d,) with `dims` at their mean given the others, by the textbook's conditional Gaussian."""
    dims, rest = list(dims), [k for k in range(len(point)) if k not in dims]
    repaired = point.copy()
    to_rest = fit.covariance[np.ix_(dims, rest)] @ np.linalg.inv(fit.covariance[np.ix_(rest, rest)])
    repaired[dims] = fit.location[dims] + to_rest @ (point[rest] - fit.location[rest])
    return repaired


def naive_smallest_set(point, fit, inside):
    d = len(point)
    for size in range(d + 1):
        repaired = {dims: repair(point, dims, fit) for dims in combinations(range(d), size)}
        working = {dims: y for dims, y in repaired.items() if inside(y[None])[0]}
        if working:
            return min(working, key=lambda dims: mahalanobis_squared(working[dims][None], *vars_of(fit))[0])
    return tuple(range(d))


def naive_grown_set(point, fit, inside):
    dims = ()
    while not inside(repair(point, dims, fit)[None])[0] and len(dims) < len(point):
        rest = [k for k in range(len(point)) if k not in dims]
        repaired = {k: repair(point, (*dims, k), fit) for k in rest}
        best = min(rest, key=lambda k: mahalanobis_squared(repaired[k][None], *vars_of(fit))[0])
        dims = (*dims, best)
    return tuple(sorted(dims))


def vars_of(fit):
    return fit.location, fit.covariance


def as_tuples(sets):
    return [tuple(np.flatnonzero(chosen)) for chosen in sets]


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((3000, 6)) @ np.linalg.cholesky(0.8 * np.eye(6) + 0.2).T + rng.standard_normal(6)
    mean[:, [0, 3]] *= 0.01
    return Population.from_latents(np.stack([mean, np.full_like(mean, -5.0)], axis=1))


@pytest.fixture(scope="module")
def batch(population):
    """200 images alike in object hue and shape; images 0-4 differ in object hue, each its own way, 5-9 in both."""
    rng = np.random.default_rng(1)
    mean = rng.multivariate_normal(population.location, population.covariance, 200)
    mean[:, 1], mean[:, 4] = 0.3, -0.2
    mean[:, [1, 4]] += 0.05 * rng.standard_normal((200, 2))
    mean[:10, 1] += [-1.9, 1.2, -1.4, 1.6, 0.9, 1.1, -0.9, 2.0, -1.2, 1.4]
    mean[5:10, 4] -= [1.0, 1.5, -1.2, 0.8, -0.8]
    latents = np.stack([mean, np.full_like(mean, -5.0)], axis=1).astype(np.float32)
    scores = scoring.score(latents, population)
    assert scores.is_outlier[:10].all()
    return latents, scores


@pytest.fixture(scope="module")
def named():
    return [
        Latent(index=k, name=name, factor=None if "latent" in name else name, dead=k not in LIVE)
        for k, name in enumerate(NAMES)
    ]


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("radius_squared", [1.0, 6.0])
def test_exact_sets_are_those_of_the_naive_search(d, radius_squared):
    fit = fit_of(d, seed=d)
    points = points_about(fit, 30, seed=d)
    inside = within(fit, radius_squared)
    found = as_tuples(smallest_sets(points, fit, radius_squared, inside))
    assert found == [naive_smallest_set(point, fit, inside) for point in points]
    assert len({len(dims) for dims in found}) > 1


def test_exact_sets_obey_a_test_that_the_distance_does_not_tell():
    fit = fit_of(4, seed=9)
    points = points_about(fit, 40, seed=9)
    near = within(fit, 5.0)

    def inside(points):
        return near(points) & (points[:, 0] <= fit.location[0])

    found = as_tuples(smallest_sets(points, fit, 5.0, inside))
    assert found == [naive_smallest_set(point, fit, inside) for point in points]
    assert found != as_tuples(smallest_sets(points, fit, 5.0, near))


def test_sets_grow_by_the_dim_that_lowers_the_distance_most(monkeypatch):
    fit = fit_of(6, seed=3)
    points = points_about(fit, 25, seed=3)
    inside = within(fit, 3.0)
    exact = smallest_sets(points, fit, 3.0, inside)
    monkeypatch.setattr("service.core.explain.minimal_sets.EXACT_DIMS", 0)
    grown = smallest_sets(points, fit, 3.0, inside)
    assert as_tuples(grown) == [naive_grown_set(point, fit, inside) for point in points]
    assert (grown.sum(axis=1) >= exact.sum(axis=1)).all()


def test_sets_do_not_depend_on_how_many_images_are_searched_at_a_time(monkeypatch):
    fit = fit_of(4, seed=4)
    points = points_about(fit, 50, seed=4)
    together = smallest_sets(points, fit, 2.0, within(fit, 2.0))
    monkeypatch.setattr("service.core.explain.minimal_sets.ROWS_AT_ONCE", 3)
    np.testing.assert_array_equal(smallest_sets(points, fit, 2.0, within(fit, 2.0)), together)


@pytest.mark.parametrize("d", [3, 13])
def test_where_nothing_helps_all_dims_are_needed(d):
    fit = fit_of(d, seed=5)
    points = points_about(fit, 4, seed=5)
    assert smallest_sets(points, fit, 1.0, lambda points: np.zeros(len(points), dtype=bool)).all()


def test_more_dims_than_can_be_searched_exactly_still_find_the_one_that_is_off():
    fit = Fit(np.zeros(20), 0.7 * np.eye(20) + 0.3)
    points = np.random.default_rng(6).multivariate_normal(fit.location, fit.covariance, 10)
    points[:, 7] += 12
    radius_squared = 45.0
    sets = smallest_sets(points, fit, radius_squared, within(fit, radius_squared))
    np.testing.assert_array_equal(sets, np.tile(np.arange(20) == 7, (10, 1)))


def test_conditional_z_is_the_residual_of_a_regression():
    rng = np.random.default_rng(7)
    points = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    fit = Fit(points.mean(axis=0), np.cov(points, rowvar=False, ddof=0))
    for k in range(4):
        design = np.column_stack([np.ones(500), np.delete(points, k, axis=1)])
        coefficients, *_ = np.linalg.lstsq(design, points[:, k], rcond=None)
        residual = points[:, k] - design @ coefficients
        np.testing.assert_allclose(conditional_z(points, fit)[:, k], residual / residual.std(), rtol=1e-8)


def test_deviations_of_a_repair_are_those_from_the_conditional_gaussian():
    fit = fit_of(5, seed=8)
    points = points_about(fit, 6, seed=8)
    repaired = np.random.default_rng(8).random((6, 5)) < 0.5
    repaired[0], repaired[1], repaired[2] = False, True, np.arange(5) == 3
    found = repair_deviations(points, fit, repaired)
    for z, point, chosen in zip(found, points, repaired, strict=True):
        dims, rest = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        across = fit.covariance[np.ix_(dims, rest)]
        left = fit.covariance[np.ix_(dims, dims)]
        left = left - across @ np.linalg.inv(fit.covariance[np.ix_(rest, rest)]) @ across.T
        expected = (point - repair(point, dims, fit))[dims] / np.sqrt(np.diag(left))
        np.testing.assert_allclose(z[dims], expected, rtol=1e-9)
        assert (z[rest] == 0).all()
    np.testing.assert_allclose(found[1], marginal_z(points, fit)[1], rtol=1e-9)
    np.testing.assert_allclose(found[2, 3], conditional_z(points, fit)[2, 3], rtol=1e-9)


def test_shares_explain_the_scores_that_are_served(batch, population):
    latents, scores = batch
    found = attribute(latents, scores.context, population)
    np.testing.assert_allclose(found.shapley.sum(axis=1), scores.mahalanobis_squared, rtol=1e-10)
    # A few sd from the population its far tail starts to count.
    usual = np.abs(latents[:, 0] - population.location)[:, LIVE].max(axis=1) < 2.5
    constant = (scores.outlier_score - found.shapley_odds.sum(axis=1))[usual]
    np.testing.assert_allclose(constant, constant[0], atol=1e-2)
    np.testing.assert_allclose(
        interactions(latents, scores.context, population).sum(axis=2), found.shapley, rtol=1e-9, atol=1e-9
    )


def test_the_changed_latents_are_named(batch, population, named):
    latents, scores = batch
    found = attribute(latents, scores.context, population)
    assert set(order(found, scores.context)[:10, 0]) <= {1, 4}
    assert (order(found, scores.context)[:5, 0] == 1).all()
    sets = minimal_sets(latents, scores.context, population)
    assert as_tuples(sets[:10]) == [(1,)] * 5 + [(1, 4)] * 5
    z = repair_z(latents, sets, scores.context, population)
    np.testing.assert_allclose(z[:5, 1], found.conditional_z[:5, 1], rtol=1e-9)
    reasons = sentences(sets, z, scores.is_outlier, named, scores.context)
    assert reasons[0] == f"object hue is {abs(z[0, 1]):.0f} sd from this batch; its other dims fit"
    assert reasons[5].startswith(("object hue and shape are ", "shape and object hue are "))
    assert reasons[-1] == "fits this batch"


def test_images_inside_need_no_repair_and_the_repaired_are_inside(batch, population):
    latents, scores = batch
    sets = minimal_sets(latents, scores.context, population)
    inside = posterior.inside(latents, scores.context, population)
    np.testing.assert_array_equal(sets.any(axis=1), ~inside)
    location, covariance = scores.context.location, scores.context.covariance
    for row in np.flatnonzero(~inside):
        live = latents[row, 0, LIVE].astype(np.float64)
        mean = latents[row, 0].astype(np.float64)
        fit = Fit(location[LIVE], covariance[np.ix_(LIVE, LIVE)])
        mean[LIVE] = repair(live, np.flatnonzero(sets[row, LIVE]), fit)
        assert posterior.inside(mean[None], scores.context, population)[0]


def test_dead_latents_count_for_nothing_and_come_last(batch, population):
    latents, scores = batch
    strange = latents.copy()
    strange[:, :, [0, 3]] = 1e6
    found = attribute(strange, scores.context, population)
    np.testing.assert_array_equal(np.flatnonzero(found.dead), [0, 3])
    for terms in (found.shapley, found.shapley_odds, found.conditional_z, found.marginal_z):
        assert (terms[:, [0, 3]] == 0).all()
    assert not minimal_sets(strange, scores.context, population)[:, [0, 3]].any()
    np.testing.assert_array_equal(order(found, scores.context)[:, -2:], np.tile([0, 3], (200, 1)))


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
    found = attribute(latents, scores.context, population)
    np.testing.assert_allclose(found.shapley_odds, 0, atol=1e-12)
    assert order(found, scores.context)[0, 0] == 5


def test_a_model_without_live_latents_explains_nothing():
    mean = np.random.default_rng(0).standard_normal((100, 3)) * 0.01
    latents = np.stack([mean, np.zeros_like(mean)], axis=1)
    population = Population.from_latents(latents)
    context = scoring.score(latents, population).context
    found = attribute(latents, context, population)
    assert found.dead.all()
    assert not found.shapley.any()
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
    found = groups(terms, latents)
    assert list(found) == ["hue", "latent 3"]
    np.testing.assert_array_equal(found["hue"], [3.0, -0.5])
    np.testing.assert_array_equal(found["latent 3"], [4.0, 3.0])
    np.testing.assert_array_equal(terms[0], [1.0, 0.0, 2.0, 4.0])


def test_odds_against_the_same_moments_are_shared_out_to_nobody():
    fit = fit_of(4, seed=10)
    np.testing.assert_array_equal(shapley_odds(points_about(fit, 5, seed=10), fit, fit), 0)


@pytest.mark.parametrize(
    ("off", "others", "flagged", "expected"),
    [
        ({}, 6, False, "fits this batch"),
        ({"scale": 4.0}, 5, False, "fits this batch"),
        ({"object hue": 5.12}, 5, True, "object hue is 5.1 sd from this batch; its other dims fit"),
        ({"object hue": 41.3}, 1, True, "object hue is 41 sd from this batch; its other dim fits"),
        ({"object hue": 5.1}, 0, True, "object hue is 5.1 sd from this batch"),
        ({"a": 5.1, "b": 3.2}, 4, True, "a and b are 5.1 and 3.2 sd from this batch; its other dims fit"),
        (
            {"a": 5.1, "b": 3.2, "c": 1},
            1,
            True,
            "a, b and c are 5.1, 3.2 and 1.0 sd from this batch; its other dim fits",
        ),
        (
            {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0},
            2,
            True,
            "4 dims are off from this batch, most of all a (9.0 sd), b (8.0 sd) and c (7.0 sd); its other dims fit",
        ),
        ({}, 6, True, "no single dim stands out, but together they are unusual for this batch"),
        ({"a": 1.9, "b": 1.7}, 4, True, "no single dim stands out, but together they are unusual for this batch"),
        ({"a": 1.9}, 5, True, "a is 1.9 sd from this batch; its other dims fit"),
    ],
)
def test_sentences_read_like_sentences(off, others, flagged, expected):
    assert sentence(off, others, flagged, "this batch") == expected


def test_sentences_say_what_the_image_was_compared_with(batch, population, named):
    latents, _ = batch
    for source, phrase in (("reference", "the reference"), ("population", "the model's population")):
        context = fit.fit(latents[10:] if source == "reference" else latents[:0], population, source=source)
        assert context.source == source
        nothing = np.zeros((1, 6))
        assert sentences(nothing.astype(bool), nothing, np.array([False]), named, context) == [f"fits {phrase}"]
