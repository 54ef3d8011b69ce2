"""Latents are named after what they were measured to follow, and after nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from export.latent_names import NAMED_SHARE, describe

FACTORS = ("object hue", "scale", "shape")
ENTROPY = np.log([10.0, 8.0, 4.0])


def names(information: list[list[float]], live: set[int] | None = None) -> list[str]:
    latent_dim = len(information)
    live = set(range(latent_dim)) if live is None else live
    return [latent.name for latent in describe(latent_dim, live, FACTORS, information, ENTROPY)]


def test_each_latent_bears_the_factor_it_shares_most_information_with() -> None:
    assert names([[0.0, 0.1, 1.3], [2.1, 0.0, 0.2], [0.1, 1.5, 0.3]]) == ["shape", "object hue", "scale"]


def test_factor_and_information_are_recorded() -> None:
    follows, none, dead = describe(3, [0, 1], FACTORS, [[2.1, 0.0, 0.2], [0.0, 0.01, 0.0], [0.0, 0.0, 0.0]], ENTROPY)
    assert (follows.factor, follows.mutual_information, follows.dead) == ("object hue", 2.1, False)
    assert (none.name, none.factor, none.mutual_information, none.dead) == ("latent 1", None, None, False)
    assert (dead.name, dead.factor, dead.mutual_information, dead.dead) == (
        "latent 2 (dead)",
        None,
        None,
        True,
    )


def test_of_two_latents_of_one_factor_the_less_informative_is_the_second() -> None:
    assert names([[1.2, 0.0, 0.0], [0.8, 0.0, 0.0], [1.5, 0.0, 0.0]]) == [
        "object hue 2",
        "object hue 3",
        "object hue",
    ]


def test_equally_informative_latents_are_named_in_their_order() -> None:
    assert names([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]) == ["object hue", "object hue 2"]


def test_a_share_below_the_threshold_gives_no_name() -> None:
    just = NAMED_SHARE * ENTROPY[1]
    assert names([[0.0, just, 0.0]]) == ["scale"]
    assert names([[0.0, 0.999 * just, 0.0]]) == ["latent 0"]


def test_most_information_is_counted_in_nats_and_the_threshold_in_the_factors_own_entropy() -> None:
    # More nats of the hue, but less than a fifth of it; the shape's larger share does not count as "most".
    assert names([[0.45, 0.0, 0.40]]) == ["latent 0"]
    assert names([[0.40, 0.0, 0.45]]) == ["shape"]


def test_a_dead_latent_is_never_named_after_a_factor() -> None:
    assert names([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]], live={1}) == ["latent 0 (dead)", "object hue"]


def test_without_factors_latents_are_numbered() -> None:
    latents = describe(3, {0, 2}, (), [[], [], []], [])
    assert [latent.name for latent in latents] == ["latent 0", "latent 1 (dead)", "latent 2"]
    assert [latent.name for latent in describe(2, {0, 1}, (), [], [])] == ["latent 0", "latent 1"]


def test_a_factor_that_never_varies_names_nothing() -> None:
    (latent,) = describe(1, {0}, ("colour",), [[0.0]], [0.0])
    assert latent.name == "latent 0"


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        describe(2, {0, 1}, FACTORS, [[0.0, 0.1, 1.3]], ENTROPY)
    with pytest.raises(ValueError, match="reshape"):
        describe(1, {0}, FACTORS, [[0.0, 0.1, 1.3]], ENTROPY[:2])


def test_the_threshold_is_what_its_comment_says() -> None:
    correlation = 0.75
    assert -np.log1p(-(correlation**2)) / 2 == pytest.approx(NAMED_SHARE * np.log(8), rel=0.01)
    random = np.random.default_rng(0)
    latent, factor = random.normal(size=10_000), random.integers(0, 15, size=10_000)
    joint = np.histogram2d(latent, factor, bins=(20, 15))[0] / 10_000
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    occupied = joint > 0
    chance = (joint[occupied] * np.log(joint[occupied] / apart[occupied])).sum()
    assert chance / np.log(15) < 0.01
