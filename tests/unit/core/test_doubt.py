"""What a gap below the flagged scores says, and what it does not."""

import numpy as np
import pytest
from scipy import stats

from service.core.decide.calibration import Calibration
from service.core.decide.doubt import NORMAL_IN_DOUBT, TAIL_INDEX, chance_of_gap, find_doubts, temper


def top(scores, count):
    """Return which of the scores (n,) are the `count` highest."""
    flagged = np.zeros(len(scores), dtype=bool)
    flagged[np.argsort(scores)[len(scores) - count :]] = True
    return flagged


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_chance_is_that_of_the_gap_among_the_highest_scores_of_a_heavy_tail(count):
    """The place that is tested is where the gap would be if half of the flags were the tail's."""
    place = -(-count // 2)
    random = np.random.default_rng(3)
    tails = 1 / random.random((4000, 200)) ** (1 / TAIL_INDEX)
    highest = np.sort(tails, axis=1)[:, ::-1]
    below, above = highest[:, place], highest[:, place - 1]
    for chance in (0.05, 0.5):
        as_rare = (below / above) ** (TAIL_INDEX * place) < chance
        assert as_rare.mean() == pytest.approx(chance, abs=0.02)
    # One batch, by the function: its origin is the lower quartile.
    scores = tails[0]
    flagged = top(scores, count)
    ratio = (scores[~flagged].max() - np.quantile(scores, 0.25)) / (scores[flagged].min() - np.quantile(scores, 0.25))
    assert chance_of_gap(scores, flagged, 0.01) == pytest.approx(ratio ** (TAIL_INDEX * place))


@pytest.mark.parametrize("n", [20, 50, 350])
def test_a_heavy_tail_alone_seldom_leaves_a_gap(n):
    batches = stats.f.rvs(6, 3, size=(400, n), random_state=1)
    for count in (1, 2, 4):
        assert np.mean([chance_of_gap(scores, top(scores, count), 0.1) < 0.05 for scores in batches]) < 0.1


def test_misfits_far_off_leave_a_gap():
    scores = np.concatenate([stats.f.rvs(6, 40, size=50, random_state=2), [60.0, 80.0]])
    assert chance_of_gap(scores, top(scores, 2), 0.1) < 0.02
    assert chance_of_gap(np.append(scores, 55.0), top(np.append(scores, 55.0), 2), 0.1) > 0.5


def test_the_scores_unit_and_origin_do_not_matter():
    scores = stats.f.rvs(6, 6, size=40, random_state=4)
    chance = chance_of_gap(scores, top(scores, 3), 1e-9)
    assert 0 < chance < 1
    assert chance_of_gap(100 * scores - 7, top(scores, 3), 1e-9) == pytest.approx(chance)


def test_without_flags_or_without_others_there_is_no_gap_to_doubt():
    scores = np.arange(10.0)
    assert chance_of_gap(scores, np.zeros(10, dtype=bool), 0.1) == 0
    assert chance_of_gap(scores, np.ones(10, dtype=bool), 0.1) == 0


def test_differences_below_the_noise_are_no_gap():
    copies = np.append(np.full(20, 1.0), 1.05)
    assert chance_of_gap(copies, top(copies, 1), 0.1) == 1
    assert chance_of_gap(copies, top(copies, 1), 1e-4) < 0.01


def test_a_flag_below_an_image_that_is_not_flagged_leaves_no_gap():
    assert chance_of_gap(np.arange(5.0), np.array([0, 0, 0, 1, 0], dtype=bool), 0.1) == 1


NOBODY = np.zeros(30, dtype=bool)


def test_flags_that_a_heavy_tail_may_have_made_are_less_probable():
    scores = stats.f.ppf(np.arange(0.5, 30) / 30, 6, 3)
    probability = np.where(top(scores, 3), 0.99, 0.2)
    tempered = temper(probability, scores, NOBODY, 0.1)
    assert (tempered[top(scores, 3)] < 1 - NORMAL_IN_DOUBT).all()
    assert (tempered[top(scores, 3)] >= 0.5).all()
    np.testing.assert_array_equal(tempered[~top(scores, 3)], 0.2)
    assert probability.max() == 0.99, "what was given stays as it is"
    doubtful = np.where(top(scores, 3), 0.5001, 0.2)
    assert (temper(doubtful, scores, NOBODY, 0.1) <= doubtful).all()


def test_images_above_gaps_that_a_tail_leaves_often_are_not_flagged():
    scores = np.linspace(1, 2, 30)
    probability = np.where(top(scores, 3), 0.99, 0.2)
    np.testing.assert_array_equal(temper(probability, scores, NOBODY, 0.1)[top(scores, 3)], 0.5)


def test_images_above_a_gap_keep_their_probability_and_those_below_it_lose_some():
    scores = stats.f.ppf(np.arange(0.5, 30) / 30, 6, 3)
    scores[-2:] = 3000.0, 4000.0
    probability = np.where(top(scores, 4), 0.99, 0.2)
    tempered = temper(probability, scores, NOBODY, 0.1)
    np.testing.assert_array_equal(tempered[top(scores, 2)], [0.99, 0.99])
    below = top(scores, 4) & ~top(scores, 2)
    assert (tempered[below] < 1 - NORMAL_IN_DOUBT).all()


def test_probabilities_never_rise_with_a_falling_score_once_they_are_tempered():
    random = np.random.default_rng(6)
    for scores in stats.f.rvs(6, 3, size=(50, 30), random_state=5):
        probability = np.sort(random.random(30))[np.argsort(np.argsort(scores))]
        tempered = temper(probability, scores, NOBODY, 0.1)
        assert (np.diff(tempered[np.argsort(scores)]) >= 0).all()
        assert not (tempered > 0.5)[probability <= 0.5].any()


def test_images_that_share_a_cause_keep_their_probability():
    scores = stats.f.ppf(np.arange(0.5, 30) / 30, 6, 3)
    probability = np.where(top(scores, 3), 0.99, 0.2)
    np.testing.assert_array_equal(temper(probability, scores, top(scores, 3), 0.1), probability)


@pytest.mark.parametrize("probability", [0.2, 0.9])
def test_without_flags_or_without_others_nothing_is_tempered(probability):
    np.testing.assert_array_equal(
        temper(np.full(30, probability), np.arange(30.0), NOBODY, 0.1), np.full(30, probability)
    )


def doubts_of(scores, flagged, alike, *, smallest_scale=0.1, hidden=0.0, recognised=1.0):
    calibration = Calibration(np.array([0.0, 1.0]), np.array([-5.0, 5.0]), 0.1)
    probability = np.where(flagged, 0.999, 0.001)
    numbers = {"smallest_scale": smallest_scale, "hidden": hidden, "recognised": recognised}
    return list(find_doubts(calibration, scores, probability, alike, **numbers))


def test_a_group_of_misfits_does_not_vouch_for_a_flagged_image_beside_it():
    """Ten misfits of one cause lie far off. One more image is flagged, not far above the rest: a tail may leave it."""
    usual = stats.f.rvs(6, 40, size=50, random_state=2)
    scores = np.concatenate([usual, np.full(10, 80.0), [1.6 * usual.max()]])
    alike = scores == 80.0
    (doubt,) = doubts_of(scores, scores > usual.max(), alike)
    assert doubt.startswith("The scores fall off gradually")
    assert not doubts_of(scores, scores > usual.max(), np.zeros(len(scores), dtype=bool))
    assert not doubts_of(scores, alike, alike)
    assert not doubts_of(scores, scores > usual.max(), alike, smallest_scale=None)


def test_flags_that_miss_most_misfits_are_doubted():
    scores, nothing = np.arange(20.0), np.zeros(20, dtype=bool)
    (doubt,) = doubts_of(scores, nothing, nothing, recognised=0.4)
    assert doubt.startswith("Misfits may be missed: 60%")


def test_probabilities_that_expect_errors_are_doubted_and_it_is_said_where_misfits_may_hide():
    calibration, nothing = Calibration(np.array([0.0, 1.0]), np.array([-5.0, 5.0]), 0.1), np.zeros(20, dtype=bool)
    numbers = {"smallest_scale": 0.1, "recognised": 1.0}
    for hidden, words in ((0.0, "No gap"), (0.2, "Misfits may hide")):
        (doubt,) = find_doubts(calibration, np.arange(20.0), np.full(20, 0.2), nothing, hidden=hidden, **numbers)
        assert doubt.startswith(words)
