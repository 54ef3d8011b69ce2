"""Kinds of a batch, and images that share their cause: which are found, and what natural variation is not taken for."""

import numpy as np
import pytest

from service.core.decide.groups import find_common_cause, find_groups
from service.core.decide.kinds import (
    NAMED_GAP,
    RULE_GAP,
    WIDER_GAP,
    _find_rules,
    find_dense,
    find_exceptions,
    find_kinds,
    find_missed_exceptions,
    posterior_of_misfits,
)
from service.core.distributions import UPPER_MEDIAN

D = 5
FLOOR = np.full(D, 0.005)
POPULATION = np.random.default_rng(99).standard_normal((250, D))
PLACES = np.array([-1.5, -0.5, 0.5, 1.5])


def of_levels(shares, n, seed, spread=0.05):
    """Return points (n, D) that have a level of PLACES, by `shares`, on axis 2 and are free elsewhere; levels (n,)."""
    random = np.random.default_rng(seed)
    levels = np.repeat(np.arange(4), np.round(np.array(shares) * n).astype(int))
    points = random.standard_normal((len(levels), D))
    points[:, 2] = PLACES[levels] + spread * random.standard_normal(len(levels))
    order = random.permutation(len(levels))
    return points[order], levels[order]


def natural(kind, n, seed):
    """Return points (n, D) of one kind that vary naturally."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((n, D))
    if kind == "student_t":
        points = 0.3 * points / np.sqrt(random.chisquare(3, (n, 1)) / 3)
    elif kind == "laplace":
        points = 0.3 * random.laplace(size=points.shape)
    elif kind == "skewed":
        points = 0.3 * np.exp(0.7 * points)
    elif kind == "uniform":
        points = random.uniform(-0.8, 0.8, points.shape)
    return points


FREE, _ = of_levels([0.25] * 4, 400, seed=0)


@pytest.mark.parametrize("n", [20, 50, 100, 400])
@pytest.mark.parametrize("seed", range(5))
def test_exceptions_to_a_rule_are_named_though_they_are_of_several_kinds(n, seed):
    """Two thirds have one level, the others one of three: the population has all four as often."""
    points, levels = of_levels([0.7, 0.1, 0.1, 0.1], n, seed)
    group = find_kinds(points, FLOOR, FREE)
    assert group is not None
    np.testing.assert_array_equal(group.members, np.flatnonzero(levels != 0))
    assert list(group.axes) == [2]
    assert group.are_misfits == posterior_of_misfits(len(group.members), len(points), 2)


@pytest.mark.parametrize("n", [20, 52, 100, 400])
def test_a_batch_that_leaves_a_factor_free_follows_no_rule(n):
    for seed in range(10):
        points, _ = of_levels([0.25] * 4, n, seed)
        assert find_exceptions(points, FLOOR, FREE) is None


def test_what_most_of_the_population_does_as_well_is_no_rule():
    points, _ = of_levels([0.8, 0.1, 0.1, 0.0], 100, seed=1)
    population, _ = of_levels([0.8, 0.1, 0.1, 0.0], 250, seed=2)
    assert find_exceptions(points, FLOOR, population) is None
    assert find_exceptions(points, FLOOR, FREE) is not None


def test_exceptions_on_several_axes_are_one_group():
    random = np.random.default_rng(4)
    points = 0.05 * random.standard_normal((100, D))
    points[:17, 0], points[17:33, 3] = 1.0, random.choice([-1.0, 1.5], 16)
    group = find_exceptions(points, FLOOR, POPULATION)
    assert group is not None
    np.testing.assert_array_equal(group.members, np.arange(33))
    assert set(group.axes) == {0, 3}


@pytest.mark.parametrize("n", [20, 50, 350])
def test_few_exceptions_are_named_where_the_flags_miss_them(n):
    points = np.random.default_rng(n).standard_normal((n, D))
    points[:, 2] = 0.5 + 0.05 * points[:, 2]
    points[:2, 2] = -1.0, 1.6
    flagged = np.zeros(n, dtype=bool)
    group = find_missed_exceptions(points, flagged, FLOOR, POPULATION)
    assert group is not None
    np.testing.assert_array_equal(group.members, [0, 1])
    assert list(group.axes) == [2]
    flagged[0] = True
    group = find_missed_exceptions(points, flagged, FLOOR, POPULATION)
    assert group is not None
    np.testing.assert_array_equal(group.members, [1])
    flagged[1] = True
    assert find_missed_exceptions(points, flagged, FLOOR, POPULATION) is None


# The end of a long tail to one side is an exception as well, flagged or not: most answers about it are doubtful anyway.
@pytest.mark.parametrize("kind", ["normal", "student_t", "laplace", "uniform"])
@pytest.mark.parametrize(("n", "most"), [(20, 3), (50, 2), (350, 2)])
def test_natural_variation_has_few_exceptions(kind, n, most):
    batches = [natural(kind, n, seed) for seed in range(40)]
    nobody = np.zeros(n, dtype=bool)
    found = [find_missed_exceptions(points, nobody, FLOOR, POPULATION) for points in batches]
    assert sum(group is not None for group in found) <= most


@pytest.mark.parametrize("kinds", [2, 3, 4])
@pytest.mark.parametrize("n", [48, 360, 1200])
def test_clumps_over_all_latents_are_counted(kinds, n):
    random = np.random.default_rng(kinds)
    member = np.arange(n) % kinds
    points = random.standard_normal((kinds, D))[member] + 0.12 * random.standard_normal((n, D))
    group = find_kinds(points, FLOOR, POPULATION)
    assert group is not None
    assert set(group.members) in [set(np.flatnonzero(member == kind)) for kind in range(kinds)]
    assert group.kinds == kinds
    assert group.are_misfits < 0.5


@pytest.mark.parametrize("kinds", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_outliers_do_not_hide_clumps(kinds, seed):
    random = np.random.default_rng(seed)
    member = np.arange(300) % kinds
    points = random.standard_normal((kinds, D))[member] + 0.12 * random.standard_normal((300, D))
    points[:20] = 2 * random.standard_normal((20, D))
    group = find_kinds(points, FLOOR, POPULATION)
    assert group is not None
    assert group.kinds == kinds
    assert max(np.mean(member[group.members] == kind) for kind in range(kinds)) > 0.9


def test_clumps_may_be_apart_over_all_latents_together():
    random = np.random.default_rng(5)
    member = np.arange(120) % 2
    points = 0.6 * member[:, None] + 0.12 * random.standard_normal((120, D))
    group = find_kinds(points, FLOOR, POPULATION)
    assert group is not None
    assert np.ptp(member[group.members]) == 0


def test_the_rest_of_a_batch_is_of_one_kind_only_if_it_surely_is():
    random = np.random.default_rng(6)
    points = np.repeat([0.0, 0.35], 60)[:, None] + 0.12 * random.standard_normal((120, D))
    assert find_kinds(points, FLOOR, POPULATION) is None
    assert find_kinds(points, FLOOR, POPULATION, is_rest=True) is not None


@pytest.mark.parametrize("kind", ["normal", "student_t", "laplace", "skewed", "uniform"])
@pytest.mark.parametrize("is_rest", [False, True])
@pytest.mark.parametrize(("n", "most"), [(20, 6), (50, 1), (350, 0)])
def test_natural_variation_is_of_one_kind(kind, n, most, is_rest):
    batches = [natural(kind, n, seed) for seed in range(40)]
    assert sum(find_kinds(points, FLOOR, POPULATION, is_rest=is_rest) is not None for points in batches) <= most


def test_a_flagged_minority_is_no_part_of_a_kind():
    random = np.random.default_rng(9)
    member = np.arange(200) % 2
    points = np.array([[-1.0] * D, [1.0] * D])[member] + 0.1 * random.standard_normal((200, D))
    points[:6] = [[3.0] * D, [-3.0] * D] * 3 + random.standard_normal((6, D))
    flagged = np.arange(200) < 6
    (group,) = find_groups(points, flagged, FLOOR, POPULATION, find_kinds(points, FLOOR, POPULATION))
    assert group.members.min() >= 6


@pytest.mark.parametrize("kind", ["normal", "student_t", "laplace", "skewed", "uniform"])
@pytest.mark.parametrize("n", [20, 50, 350])
def test_rare_images_of_one_kind_share_no_cause(kind, n):
    for seed in range(40):
        points = natural(kind, n, seed)
        scores = np.square(points - np.median(points, axis=0)).sum(axis=1)
        assert find_common_cause(points, scores, FLOOR) is None


@pytest.mark.parametrize(("n", "count"), [(20, 4), (50, 6), (350, 40)])
def test_the_highest_ranked_images_share_a_cause_if_they_are_alike(n, count):
    random = np.random.default_rng(n)
    points = 0.4 * random.standard_normal((n, D))
    points[:count] = random.standard_normal(D) * 1.5 + 0.1 * random.standard_normal((count, D))
    scores = np.square(points - np.median(points, axis=0)).sum(axis=1)
    if n >= 50:
        scores[n - 1] = scores.max() + 1  # a rare image ranks above them
    group = find_common_cause(points, scores, FLOOR)
    assert group is not None
    np.testing.assert_array_equal(group.members, np.arange(count))
    order = random.permutation(n)
    moved = find_common_cause(points[order], scores[order], FLOOR)
    assert moved is not None
    np.testing.assert_array_equal(np.sort(order[moved.members]), group.members)


def test_a_batch_of_copies_shares_no_cause():
    for n in (1, 2, 12, 50):
        assert find_common_cause(np.ones((n, D)), np.zeros(n), FLOOR) is None


@pytest.mark.parametrize("kind", ["normal", "student_t", "laplace", "skewed", "uniform"])
@pytest.mark.parametrize("n", [12, 50, 350])
def test_no_part_of_natural_variation_is_dense(kind, n):
    assert [find_dense(natural(kind, n, seed), FLOOR) for seed in range(20)] == [None] * 20


@pytest.mark.parametrize("share", [0.15, 0.2, 0.35])
def test_images_with_one_cause_within_the_reach_of_what_is_normal_are_dense(share):
    random = np.random.default_rng(8)
    points = 0.6 * random.standard_normal((350, D))
    count = round(share * 350)
    points[:count] = 0.8 + 0.08 * random.standard_normal((count, D))
    order = random.permutation(350)
    group = find_dense(points[order], FLOOR)
    assert group is not None
    assert np.mean(np.isin(group.members, np.flatnonzero(order < count))) > 0.9
    assert np.mean(order[group.members] < count) * len(group.members) > 0.9 * count


def test_flagged_images_do_not_hide_what_the_others_are():
    points, levels = of_levels([0.5, 0.0, 0.0, 0.5], 60, seed=3)
    points[:6] = 6 * np.random.default_rng(1).standard_normal((6, D))
    flagged = np.arange(60) < 6
    (group,) = find_groups(points, flagged, FLOOR, POPULATION, find_kinds(points, FLOOR, POPULATION))
    assert set(group.members) <= {*np.flatnonzero(levels == levels[group.members[0]])}
    assert group.members.min() >= 6


def test_kinds_beside_a_flagged_group_are_named_as_well():
    random = np.random.default_rng(7)
    member = np.repeat([0, 1, 2], [20, 20, 10])
    points = np.array([[-1.0] * D, [1.0] * D, [3.0] * D])[member] + 0.1 * random.standard_normal((50, D))
    alike, kinds = find_groups(points, member == 2, FLOOR, POPULATION, find_kinds(points, FLOOR, POPULATION))
    np.testing.assert_array_equal(alike.members, np.flatnonzero(member == 2))
    assert alike.kinds == 3
    assert len(kinds.members) == 20
    assert kinds.kinds == 2


def naive_rule(places, floor, spreads):
    """Return where the rule of one axis begins and ends, and how wide its gaps are, image by image."""
    places, n = sorted(places), len(places)
    half = (n + 1) // 2
    first = min(range(n - half + 1), key=lambda start: places[start + half - 1] - places[start])
    deviation = np.hypot((places[first + half - 1] - places[first]) / (2 * UPPER_MEDIAN), floor**0.5)
    while True:
        low, high, gap = first, first + half - 1, (spreads + WIDER_GAP / n) * deviation
        while low > 0 and places[low] - places[low - 1] <= gap:
            low -= 1
        while high < n - 1 and places[high + 1] - places[high] <= gap:
            high += 1
        wider = np.sqrt(np.var(places[low : high + 1]) + floor)
        if wider <= deviation * (1 + 1e-9):
            return places[low], places[high], gap
        deviation = wider


@pytest.mark.parametrize("kind", ["student_t", "laplace", "skewed", "levels"])
@pytest.mark.parametrize("n", [10, 11, 60])
def test_the_rules_of_all_axes_are_those_of_each(kind, n):
    for seed in range(10):
        points = of_levels((0.1, 0.6, 0.3, 0.0), n, seed)[0] if kind == "levels" else natural(kind, n, seed)
        for spreads in (RULE_GAP, NAMED_GAP):
            rules = _find_rules(np.sort(points, axis=0), FLOOR, spreads)
            naive = [naive_rule(axis.tolist(), FLOOR[0], spreads) for axis in points.T]
            np.testing.assert_allclose(np.transpose(rules), naive)
