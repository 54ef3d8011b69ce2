"""Axes of a collection: moments that add up, and axes that tell kinds from each other."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from service.core.axes import CROWD, FEWEST_IN_CROWD, FeatureMoments, crowd_distances, locality_preserving, residuals


@pytest.fixture(scope="module")
def collection():
    """Three kinds that differ along one direction of little variance, among directions of much more."""
    random = np.random.default_rng(0)
    kind = np.arange(600) % 3
    features = random.standard_normal((600, 20)) * np.linspace(2, 1, 20)
    features[:, 7] = 3.0 * kind + 0.1 * random.standard_normal(600)
    return features + 50, kind


def moments_of(features):
    moments = FeatureMoments.empty(features.shape[1])
    for part in np.array_split(features, 7):
        moments.add(part)
    return moments


def test_principal_axes_are_those_of_scikit_learn(collection):
    features, _ = collection
    mean, axes, variances = moments_of(features).principal(5)
    expected = PCA(5).fit(features)
    np.testing.assert_allclose(mean, features.mean(axis=0))
    np.testing.assert_allclose(variances, expected.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(np.abs(axes.T @ expected.components_.T), np.eye(5), atol=1e-6)


def test_moments_add_up_and_are_taken_away(collection):
    features, _ = collection
    first, second = moments_of(features[:200]), moments_of(features[200:])
    whole = first + second
    np.testing.assert_allclose(whole.squares, moments_of(features).squares)
    np.testing.assert_allclose((whole - second).total, first.total)
    assert (whole - second).size == 200


def test_features_without_variance_have_no_axes():
    _, axes, variances = moments_of(np.full((30, 6), 2.0)).principal(4)
    assert axes.shape[1] == len(variances) == 0 or variances[0] < 1e-9


def test_the_first_axis_tells_kinds_apart_and_every_axis_has_unit_variance(collection):
    features, kind = collection
    mean, principal, variances = moments_of(features).principal(12)
    axes = locality_preserving(features, mean, principal, variances, 3)
    latents = (features - mean) @ axes
    np.testing.assert_allclose(latents.std(axis=0, ddof=1), 1, rtol=0.02)
    between = np.var([latents[kind == each].mean(axis=0) for each in range(3)], axis=0)
    assert between[0] > 0.8
    assert between[0] == between.max()


def test_residuals_are_distances_from_the_span():
    principal = np.eye(4)[:, :2]
    features = np.array([[1.0, 2.0, 0.0, 0.0], [5.0, 5.0, 3.0, 4.0]])
    np.testing.assert_allclose(residuals(features, np.zeros(4), principal), [0, 25])


def crowd(kinds, strangers, random, channels=40):
    """Return features of three kinds of `kinds` each, and of strangers that are alike."""
    centres = random.standard_normal((4, channels))
    which = np.concatenate([np.repeat(np.arange(3), kinds), np.full(strangers, 3)])
    return 4 * centres[which] + random.standard_normal((len(which), channels))


@pytest.mark.parametrize("strangers", [1, 5, 20])
def test_strangers_that_are_alike_do_not_vouch_for_each_other(strangers):
    features = crowd(200, strangers, np.random.default_rng(0))
    distances = crowd_distances(features, features)
    assert distances[600:].min() > np.quantile(distances[:600], 0.99)


def test_a_kind_that_is_a_crowd_is_not_lonely():
    features = crowd(200, round(1.5 * CROWD * 600), np.random.default_rng(0))
    distances = crowd_distances(features, features)
    assert np.median(distances[600:]) < np.quantile(distances[:600], 0.99)


def test_the_distance_to_a_crowd_is_that_of_the_angle_to_its_furthest():
    features = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [-1.0, 0.0], [0.0, -1.0]])
    assert len(features) * CROWD < FEWEST_IN_CROWD == 4
    np.testing.assert_allclose(
        crowd_distances(features[:2], features), [1 + 0.0, 1 + np.sqrt(0.5)], atol=1e-6
    )  # the fourth nearest: at a right angle, and at 135 degrees
    np.testing.assert_allclose(crowd_distances(features[:1], features[:2]), [1 - np.sqrt(0.5)], atol=1e-6)


def test_lengths_and_order_do_not_matter_to_a_crowd():
    random = np.random.default_rng(0)
    features = crowd(50, 3, random)
    order, lengths = random.permutation(len(features)), random.uniform(0.5, 2, (len(features), 1))
    expected = crowd_distances(features, features)
    np.testing.assert_allclose(crowd_distances(features * lengths, features[order]), expected, atol=1e-5)
