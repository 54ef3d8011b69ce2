"""Groups that are alike and apart: which are named, by which axes, and whether counting can tell who is normal."""

import numpy as np
import pytest

from service.core.decide.groups import find_groups, likeness, probability_of_misfits
from service.core.decide.kinds import find_kinds

D = 5
FLOOR = np.full(D, 0.005)
POPULATION = np.random.default_rng(99).standard_normal((250, D))


def groups_of(points, flagged, floor, population):
    return find_groups(points, flagged, floor, population, find_kinds(points, floor, population))


def two_kinds(n, smaller, axes=(1,), seed=0):
    """Return points (n, D) of two kinds that differ on `axes`, and which belong to the smaller one."""
    random = np.random.default_rng(seed)
    points, member = random.standard_normal((n, D)), np.arange(n) < smaller
    for axis in axes:
        points[:, axis] = np.where(member, 1.2, -0.9) + 0.1 * random.standard_normal(n)
    order = random.permutation(n)
    return points[order], member[order]


def test_flagged_images_that_are_alike_are_a_group():
    points, member = two_kinds(60, 9)
    (group,) = groups_of(points, member, FLOOR, POPULATION)
    np.testing.assert_array_equal(group.members, np.flatnonzero(member))
    assert group.axes[0] == 1
    assert group.are_misfits > 0.99


@pytest.mark.parametrize("strangers", [1, 2, 3])
def test_images_that_were_flagged_for_another_reason_do_not_hide_a_group(strangers):
    points, member = two_kinds(60, 9)
    flagged = member.copy()
    flagged[np.flatnonzero(~member)[:strangers]] = True
    (group,) = groups_of(points, flagged, FLOOR, POPULATION)
    np.testing.assert_array_equal(group.members, np.flatnonzero(member))
    assert group.axes[0] == 1


def test_two_flagged_images_that_are_alike_are_no_group():
    points, member = two_kinds(60, 2)
    flagged = member.copy()
    flagged[np.flatnonzero(~member)[:1]] = True
    assert groups_of(points, flagged, FLOOR, POPULATION) == []


def test_flagged_images_that_have_nothing_in_common_are_none():
    random = np.random.default_rng(1)
    points = np.vstack([0.1 * random.standard_normal((50, D)), 2 * random.standard_normal((8, D))])
    assert groups_of(points, np.arange(58) >= 50, FLOOR, POPULATION) == []


@pytest.mark.parametrize("n", [12, 20, 50, 350])
def test_two_kinds_are_named_though_nothing_is_flagged(n):
    points, member = two_kinds(n, n // 2, axes=(0, 3))
    (group,) = groups_of(points, np.zeros(n, dtype=bool), FLOOR, POPULATION)
    assert set(group.members) in ({*np.flatnonzero(member)}, {*np.flatnonzero(~member)})
    assert set(group.axes) == {0, 3}
    assert group.are_misfits < 0.3


def test_the_smaller_kind_is_the_group():
    points, member = two_kinds(50, 14)
    (group,) = groups_of(points, np.zeros(50, dtype=bool), FLOOR, POPULATION)
    np.testing.assert_array_equal(group.members, np.flatnonzero(member))


def test_what_splits_the_population_as_well_is_no_kind():
    points, _ = two_kinds(50, 25)
    population = POPULATION.copy()
    population[:, 1] = np.where(population[:, 1] > 0, 1.2, -0.9) + 0.1 * population[:, 2]
    assert groups_of(points, np.zeros(50, dtype=bool), FLOOR, population) == []


@pytest.mark.parametrize("n", [3, 12, 20, 50, 350])
def test_an_ordinary_batch_has_no_groups(n):
    nobody = np.zeros(n, dtype=bool)
    batches = [np.random.default_rng(seed).standard_normal((n, D)) for seed in range(50)]
    assert sum(len(groups_of(points, nobody, FLOOR, POPULATION)) for points in batches) <= 1


@pytest.mark.parametrize("n", [1, 2, 12])
def test_copies_and_models_without_latents_have_no_groups(n):
    nobody = np.zeros(n, dtype=bool)
    assert groups_of(np.ones((n, D)), nobody, FLOOR, POPULATION) == []
    assert groups_of(np.ones((n, 0)), nobody, FLOOR[:0], POPULATION[:, :0]) == []


@pytest.mark.parametrize(
    ("members", "size", "low", "high"),
    [(10, 20, 0, 0.2), (25, 50, 0, 0.1), (175, 350, 0, 0.001), (10, 50, 0.99, 1), (122, 350, 0.99, 1), (4, 20, 0.9, 1)],
)
def test_counting_tells_misfits_from_kinds_as_far_as_it_can(members, size, low, high):
    assert low <= probability_of_misfits(members, size) <= high


@pytest.mark.parametrize("kinds", [2, 3, 4])
@pytest.mark.parametrize("size", [20, 50, 350])
def test_kinds_whose_numbers_are_drawn_are_rarely_called_misfits(size, kinds):
    """Each image is of one of some kinds with the same probability: the smallest is the group."""
    smallest = np.random.default_rng(size).multinomial(size, [1 / kinds] * kinds, 4000).min(axis=1)
    called = [probability_of_misfits(int(members), size, kinds) > 0.5 for members in smallest]
    assert np.mean(called) <= 0.11  # 0.1, and what 4,000 draws err by


def test_a_flagged_third_of_three_kinds_is_less_surely_misfits():
    """Sixteen of fifty are too few for one of two kinds, and as many as one of three."""
    random = np.random.default_rng(5)
    points = random.standard_normal((48, D))
    points[:, 1] = np.array([-1.6, 0.0, 1.6])[np.arange(48) % 3] + 0.05 * random.standard_normal(48)
    flagged = np.arange(48) % 3 == 0
    group, another = groups_of(points, flagged, FLOOR, POPULATION)
    np.testing.assert_array_equal(group.members, np.flatnonzero(flagged))
    assert len(another.members) == 16
    assert group.kinds == 3
    assert group.are_misfits == probability_of_misfits(16, 48, kinds=3) < 0.5 < probability_of_misfits(16, 48)


def test_a_huge_batch_is_counted_too():
    assert probability_of_misfits(20_000, 100_000) == 1
    assert probability_of_misfits(50_000, 100_000) == 0


def test_likeness_rises_with_the_distance():
    values = [likeness(np.array([0.5, each])) for each in (0, 2, 8, 30, 1e6)]
    assert values == sorted(values)
    assert values[2] == 0.5
    assert likeness(np.zeros(0)) == 0
