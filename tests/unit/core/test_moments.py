import numpy as np

from service.core.detect.moments import Moments


def test_moments_equal_the_textbook_formulas():
    points = np.random.default_rng(0).standard_normal((40, 3)) + 1e3
    moments = Moments.of(points)
    assert moments.size == 40
    np.testing.assert_allclose(moments.mean, points.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.scatter / 39, np.cov(points, rowvar=False), rtol=1e-9)


def test_integer_weights_count_repeated_points():
    rng = np.random.default_rng(1)
    points, weights = rng.standard_normal((20, 4)), rng.integers(0, 4, 20)
    weighted, repeated = (
        Moments.of(points, weights.astype(float)),
        Moments.of(np.repeat(points, weights, axis=0)),
    )
    assert weighted.size == repeated.size
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.scatter, repeated.scatter, rtol=1e-9, atol=1e-12)


def test_moments_keep_their_digits_far_from_the_origin():
    points = np.random.default_rng(2).standard_normal((1000, 2))
    near, far = Moments.of(points), Moments.of(points + 1e6)
    np.testing.assert_allclose(far.scatter, near.scatter, rtol=1e-6)
