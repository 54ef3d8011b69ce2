import numpy as np
import pytest
from edit_context import CONTEXT, COVARIANCE, LIVE, LOCATION, random_latents
from scipy.stats import chi2, kstest

from service.core.edit import latent_edits, sampling
from service.errors import ContextTooSmall


def test_gaussian_samples_have_the_truncated_distribution():
    radius_squared, d = 3.0, len(LIVE)  # cuts off 44% of the Gaussian
    rng = np.random.default_rng(3)
    samples = np.concatenate([sampling.sample_gaussian(1000, *CONTEXT, radius_squared, rng) for _ in range(20)])
    distances = latent_edits.distance_squared(samples, *CONTEXT)
    share_inside = chi2.cdf(radius_squared, d)
    assert kstest(distances, lambda value: chi2.cdf(value, d) / share_inside).pvalue > 1e-3
    # The slow way: draw, and throw away what lies outside.
    draws = LOCATION + rng.standard_normal((60_000, 5)) @ np.linalg.cholesky(COVARIANCE).T
    draws = draws[latent_edits.distance_squared(draws, *CONTEXT) <= radius_squared][:, LIVE]
    unit = np.sqrt(np.diag(COVARIANCE)[LIVE])
    np.testing.assert_allclose(samples[:, LIVE].mean(axis=0) / unit, draws.mean(axis=0) / unit, atol=0.03)
    scale = np.outer(unit, unit)
    ours, theirs = (np.cov(points, rowvar=False) / scale for points in (samples[:, LIVE], draws))
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("radius_squared", [0.0, 1e-300, 1e-3, 1e9])
def test_gaussian_samples_of_extreme_radii(radius_squared):
    samples = sampling.sample_gaussian(100, *CONTEXT, radius_squared, np.random.default_rng(0))
    assert np.isfinite(samples).all()
    assert (latent_edits.distance_squared(samples, *CONTEXT) <= radius_squared + 1e-25).all()


class _HighestDraws(np.random.Generator):
    """Draws radii as close to the rim as rounding lets them be."""

    def random(self, size):
        return np.full(size, np.nextafter(1, 0))


@pytest.mark.parametrize("radius_squared", [0.01, 3.0, 12.6, 40.0])
def test_a_gaussian_sample_on_the_rim_is_inside(radius_squared):
    samples = sampling.sample_gaussian(1000, *CONTEXT, radius_squared, _HighestDraws(np.random.PCG64(0)))
    distances = latent_edits.distance_squared(samples, *CONTEXT)
    assert (distances <= radius_squared).all()
    np.testing.assert_allclose(distances, radius_squared, rtol=1e-8)


def test_empirical_samples_have_the_posterior_of_the_image_drawn():
    rng = np.random.default_rng(4)
    latents = np.stack([10.0 * np.arange(15).reshape(3, 5), np.log([[0.01] * 5, [0.04] * 5, [1.0] * 5])], axis=1)
    runs = [sampling.sample_empirical(latents.astype(np.float32), 1000, rng) for _ in range(10)]
    samples, drawn = (np.concatenate(part) for part in zip(*runs, strict=True))
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [1 / 3] * 3, atol=0.02)
    for image, deviation in enumerate([0.1, 0.2, 1.0]):
        noise = (samples[drawn == image] - latents[image, 0]) / deviation
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.08)
        np.testing.assert_allclose(noise.std(axis=0), 1, atol=0.06)


def test_an_image_that_the_encoder_is_sure_of_is_drawn_as_it_is():
    latents = np.stack([random_latents(4), np.full((4, 5), -200.0)], axis=1)
    samples, drawn = sampling.sample_empirical(latents, 50, np.random.default_rng(0))
    np.testing.assert_allclose(samples, latents[drawn, 0], atol=1e-9)


def test_there_is_nothing_to_draw_from_no_image():
    with pytest.raises(ContextTooSmall, match="no normal image"):
        sampling.sample_empirical(np.empty((0, 2, 5)), 1, np.random.default_rng(0))
