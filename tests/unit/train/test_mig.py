from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("skimage")

from train.evaluation.mig import information_gap, sampled_information_gap, ssim

rng = np.random.default_rng(0)
FACTORS = np.stack([rng.integers(4, size=10_000), rng.integers(5, size=10_000)], axis=1)


def test_a_latent_for_each_factor_has_gap_one():
    mean = np.column_stack([FACTORS, rng.normal(size=(10_000, 2))])
    gap = information_gap(mean, FACTORS)
    assert gap.per_factor == pytest.approx([1, 1], abs=0.01)
    assert gap.factor_entropy == pytest.approx(np.log([4, 5]), abs=0.01)
    assert gap.mutual_information.shape == (4, 2)


def test_a_factor_that_two_latents_know_has_gap_zero():
    gap = information_gap(np.column_stack([FACTORS, FACTORS[:, 0]]), FACTORS)
    assert gap.per_factor == pytest.approx([0, 1], abs=0.01)


def test_noise_has_gap_zero():
    assert information_gap(rng.normal(size=(10_000, 4)), FACTORS).gap == pytest.approx(0, abs=0.01)


def test_the_sampled_gap_agrees_where_posteriors_are_narrow_and_falls_where_they_are_wide():
    mean = np.column_stack([FACTORS, rng.normal(size=(10_000, 1))]).astype(np.float64)
    narrow = sampled_information_gap(mean, np.full_like(mean, np.log(0.05**2)), FACTORS, samples=500)
    wide = sampled_information_gap(mean, np.full_like(mean, np.log(1.5**2)), FACTORS, samples=500)
    assert narrow.per_factor == pytest.approx([1, 1], abs=0.05)
    assert wide.gap < 0.5


def test_sampled_information_of_a_gaussian_channel_is_known_in_closed_form():
    """z = v + noise, v = +-1: the information of a binary-input Gaussian channel at noise 0.5, by quadrature."""
    factor = np.tile([0, 1], 2_000)[:, None]
    mean = (2.0 * factor - 1).astype(np.float64)
    gap = sampled_information_gap(
        np.column_stack([mean, mean * 0]), np.full((4_000, 2), np.log(0.25)), factor, samples=4_000
    )
    grid = np.linspace(-5, 5, 20_001)
    likelihood = np.exp(-2 * (grid[None] - np.array([-1, 1])[:, None]) ** 2) / np.sqrt(2 * np.pi * 0.25)
    mixture = likelihood.mean(0)
    expected = (likelihood * np.log(likelihood / mixture)).mean(0).sum() * (grid[1] - grid[0])
    assert gap.mutual_information[0, 0] == pytest.approx(expected, abs=0.02)
    assert gap.mutual_information[1, 0] == pytest.approx(0, abs=1e-9)


def test_ssim_of_an_image_with_itself_is_one_and_with_noise_is_low():
    images = rng.integers(256, size=(3, 16, 16, 3)).astype(np.uint8)
    assert ssim(images, images) == pytest.approx([1, 1, 1])
    assert (ssim(images, images[::-1])[[0, 2]] < 0.3).all()
