"""Drift: 1 and 0 where requests come from the population, however they are put together; told where they do not."""

from dataclasses import replace

import numpy as np
import pytest

from service.core.drift import MOST_DISTANCE, MOST_SHIFT, WINDOW, Drift
from service.core.population import Population

rng = np.random.default_rng(0)
SPREAD = np.array([0.5, 1.0, 2.0, 1.5])
CENTRE = np.array([1.0, -2.0, 0.0, 3.0])


def population_of(means: np.ndarray) -> Population:
    return Population.from_latents(latents_of(means))


def latents_of(means: np.ndarray) -> np.ndarray:
    """Latents (n, 2, L) with those means."""
    return np.stack([means, np.full_like(means, -4)], axis=1)


def uniform(count: int) -> np.ndarray:
    """Latents as factors have them: uniform, not Gaussian at all; two of them correlated."""
    units = rng.uniform(-np.sqrt(3), np.sqrt(3), (count, 4))
    units[:, 1] = 0.6 * units[:, 0] + 0.8 * units[:, 1]
    return CENTRE + SPREAD * units


@pytest.fixture(scope="module")
def population():
    return population_of(uniform(50_000))


def naive_distance(population: Population, means: np.ndarray) -> float:
    centred = means - population.location
    inverse = np.linalg.inv(population.covariance)
    return float(np.mean([row @ inverse @ row for row in centred])) / len(population.location)


def test_before_any_request_there_is_no_drift(population):
    drift = Drift(population)
    assert (drift.requests, drift.distance, drift.shift.tolist()) == (0, 1.0, [0, 0, 0, 0])


def test_the_distance_is_the_mean_squared_mahalanobis_distance_over_what_is_expected(population):
    means = uniform(50)
    drift = Drift(population)
    drift.add(latents_of(means))
    assert drift.distance == pytest.approx(naive_distance(population, means))
    assert drift.shift == pytest.approx((means - population.location).mean(0) / np.sqrt(np.diag(population.covariance)))


def test_images_of_a_population_that_is_not_gaussian_are_where_they_are_expected(population):
    drift = Drift(population)
    for _ in range(WINDOW):
        drift.add(latents_of(uniform(rng.integers(1, 30))))
    assert drift.distance == pytest.approx(1, abs=0.05)
    assert drift.shift == pytest.approx(np.zeros(4), abs=0.1)


def test_contexts_drawn_from_the_population_are_no_drift_whatever_they_have_in_common(population):
    """Images of one request alike, and of any number: the error stays within what n single images would have."""
    single = np.std([naive_distance(population, image[None]) for image in uniform(5_000)])
    distances, shifts, n = [], [], 50
    for _ in range(40):
        drift = Drift(population)
        for _ in range(n):
            images = np.repeat(uniform(1), rng.choice([1, 10, 1_000]), axis=0)
            images[:, 3] = uniform(len(images))[:, 3]  # one latent free, the others all the same
            drift.add(latents_of(images))
        distances.append(drift.distance - 1)
        shifts.append(drift.shift)
    assert np.sqrt(np.mean(np.square(distances))) < 1.2 * single / np.sqrt(n)
    assert (np.sqrt(np.mean(np.square(shifts), axis=0)) < 1.3 / np.sqrt(n)).all()


def test_the_shipped_bundle_s_own_population_is_no_drift(served_bundle):
    drift = Drift(served_bundle.population, window=2_000)
    for mean in served_bundle.population.sample:
        drift.add(latents_of(mean[None]))
    assert drift.requests == len(served_bundle.population.sample)
    assert drift.distance == pytest.approx(1, abs=0.05)
    assert abs(drift.shift).max() < 4 / np.sqrt(drift.requests)


def test_a_latent_that_has_moved_is_named(population):
    drift = Drift(population)
    for _ in range(200):
        drift.add(latents_of(uniform(20) + np.array([0, 0, 2.0, 0])))
    assert drift.shift == pytest.approx([0, 0, 1, 0], abs=0.1)
    assert drift.distance == pytest.approx(1 + 1 / 4, abs=0.05)


def test_images_that_the_model_has_not_seen_lie_far_out(population):
    drift = Drift(population)
    for _ in range(50):
        drift.add(latents_of(CENTRE + 3 * (uniform(20) - CENTRE)))
    assert drift.distance > 5


def test_no_request_counts_for_more_than_its_share(population):
    drift = Drift(population)
    for _ in range(99):
        drift.add(latents_of(uniform(20)))
    before = drift.distance, drift.shift
    drift.add(latents_of(np.full((10_000, 4), 1e9)))
    assert drift.distance - before[0] < MOST_DISTANCE / 100
    assert abs(drift.shift - before[1]).max() < (MOST_SHIFT + 1) / 100


def test_old_requests_are_forgotten(population):
    drift = Drift(population, window=10)
    for _ in range(10):
        drift.add(latents_of(np.full((5, 4), 1e3)))
    assert drift.distance == pytest.approx(MOST_DISTANCE)
    for _ in range(10):
        drift.add(latents_of(CENTRE[None]))
    assert (drift.requests, drift.distance) == (10, pytest.approx(0, abs=1e-3))


def test_requests_without_a_usable_image_count_for_nothing(population):
    drift = Drift(population)
    drift.add(np.empty((0, 2, 4)))
    drift.add(np.full((3, 2, 4), np.nan))
    assert drift.requests == 0
    drift.add(np.concatenate([np.full((3, 2, 4), np.inf), latents_of(CENTRE[None])]))
    assert (drift.requests, drift.distance) == (1, pytest.approx(0, abs=1e-3))


def test_dead_latents_are_left_out_and_such_as_move_together_count_once():
    means = uniform(20_000)
    means[:, 2] = 5.0  # dead
    means[:, 3] = 2 * means[:, 0] - 1
    drift = Drift(population_of(means))
    assert drift.live.tolist() == [0, 1, 3]
    for mean in means[:WINDOW]:
        drift.add(latents_of(mean[None]))
    assert drift.distance == pytest.approx(1, abs=0.1)


def test_a_population_without_live_latents_has_no_drift(population):
    drift = Drift(replace(population, covariance=np.zeros((4, 4))))
    drift.add(latents_of(uniform(5)))
    assert (drift.distance, drift.shift.tolist()) == (0, [])
