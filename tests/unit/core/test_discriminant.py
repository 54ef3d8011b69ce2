"""The linear discriminant of a context against its population."""

import numpy as np

from service.core.detect.density_ratio import MOST_IMAGES, Kernel
from service.core.detect.discriminant import ROWS_AT_ONCE, ratio_shares

D = 3
RIDGE = np.array([0.1, 0.3, 0.5])


def kernel(n, location, seed=0):
    random = np.random.default_rng(seed)
    points = np.round(location + 0.5 * random.standard_normal((n, D)), 3)
    return Kernel(points, np.round(random.uniform(0.1, 1, n), 3), np.full(D, np.inf))


def correlation():
    return np.corrcoef(np.random.default_rng(9).standard_normal((D, 40)))


def test_it_is_the_log_ratio_of_two_gaussians_of_one_covariance():
    context, points = kernel(40, 1.0), np.random.default_rng(1).standard_normal((5, D))
    points = np.round(points, 3)
    mean = np.average(context.points, axis=0, weights=context.weights)
    covariance = np.cov(context.points.T, aweights=context.weights, ddof=0)
    within = np.linalg.inv((covariance + correlation()) / 2 + np.diag(RIDGE))
    expected = points @ within @ mean - mean @ within @ mean / 2
    np.testing.assert_allclose(ratio_shares(points, context, correlation(), RIDGE).sum(axis=1), expected, rtol=1e-9)


def test_no_image_vouches_for_itself():
    context = kernel(ROWS_AT_ONCE + 5, np.array([1.0, 0.0, -0.5]))
    shares = ratio_shares(context.points, context, correlation(), RIDGE)
    for row in range(len(context.points)):
        others = Kernel(np.delete(context.points, row, 0), np.delete(context.weights, row), context.bandwidth)
        alone = ratio_shares(context.points[row : row + 1], others, correlation(), RIDGE)[0]
        np.testing.assert_allclose(shares[row], alone, rtol=1e-9, atol=1e-12)


def test_a_context_in_the_middle_of_the_population_says_nothing():
    points = kernel(30, 0.0).points
    context = Kernel(np.concatenate([points, -points]), np.ones(60), np.full(D, np.inf))
    shares = ratio_shares(5 * np.ones((1, D)), context, correlation(), RIDGE)
    np.testing.assert_allclose(shares, 0, atol=1e-9)


def test_what_lies_to_the_other_side_is_less_likely_and_an_axis_that_does_not_differ_says_little():
    context = kernel(MOST_IMAGES, np.array([1.5, 0.0, 0.0]))
    here, there = ratio_shares(np.array([[1.5, 1.0, 0.0], [-1.5, 1.0, 0.0]]), context, np.eye(D), RIDGE)
    assert here[0] > 1 > -1 > there[0]
    assert abs(here[1]) < 0.2


def test_no_images_and_no_weights_give_no_shares():
    context = kernel(10, 1.0)
    assert ratio_shares(np.empty((0, D)), context, correlation(), RIDGE).shape == (0, D)
    weightless = Kernel(context.points, np.zeros(10), context.bandwidth)
    assert (ratio_shares(context.points, weightless, correlation(), RIDGE) == 0).all()
