"""Foreign images: the measure and its naive twin, the rule, the reason, and what the shipped bundle makes of them."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.core.detect import ood
from service.core.detect.reconstruction import reconstruction_error
from service.core.population import Familiarity
from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks.ood_images import KINDS, foreign_images

DATA = Path(__file__).parents[2] / "data"
FAMILIARITY = Familiarity(median=4.0, high=10.0)


def pair(*errors: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and their reconstructions, each off by so many grey levels in every pixel."""
    images = np.full((len(errors), 4, 4, 3), 100, dtype=np.uint8)
    return images, images + np.array(errors, dtype=np.uint8)[:, None, None, None]


# --- the measure


def test_reconstruction_error_is_the_mean_squared_difference():
    images, decoded = np.random.default_rng(0).integers(0, 256, (2, 7, 16, 8, 3), dtype=np.uint8)
    naive = ((images.astype(np.float64) - decoded.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(reconstruction_error(images, decoded), naive, rtol=1e-6)


def test_differences_of_bytes_neither_wrap_nor_overflow():
    black, white = np.zeros((2, 64, 64, 3), np.uint8), np.full((2, 64, 64, 3), 255, np.uint8)
    assert reconstruction_error(black, white).tolist() == [255.0**2] * 2
    assert reconstruction_error(white, black).tolist() == [255.0**2] * 2


def test_every_image_is_measured_by_itself():
    images, decoded = np.random.default_rng(1).integers(0, 256, (2, 9, 8, 8, 1), dtype=np.uint8)
    error = reconstruction_error(images, decoded)
    parts = [reconstruction_error(images[rows], decoded[rows]) for rows in (slice(4), slice(4, 9), slice(9, 9))]
    assert np.concatenate(parts).tolist() == error.tolist()
    whole, parts = ood.check(error, FAMILIARITY), [ood.check(part, FAMILIARITY) for part in parts]
    joined = ood.OodCheck.concatenate(parts)
    assert joined.ood_ratio.tolist() == whole.ood_ratio.tolist()
    assert joined.times_median.tolist() == whole.times_median.tolist()


# --- the rule


def test_foreignness_is_one_at_the_limit():
    limit = FAMILIARITY.margin * FAMILIARITY.high
    result = ood.check(reconstruction_error(*pair(0, 1, 20)), FAMILIARITY)
    np.testing.assert_allclose(result.ood_ratio, [0, 1 / limit, 400 / limit])
    np.testing.assert_allclose(result.times_median, [0, 1 / 4, 100])
    assert result.reason(2) == "outside what the model has seen: its reconstruction error is 100 times the usual"


def test_the_reason_keeps_two_digits_of_a_small_ratio():
    result = ood.check(reconstruction_error(*pair(5)), FAMILIARITY)
    assert "reconstruction error is 6.2 times" in result.reason(0)


# --- the limit in a context


def ratios(*, usual: float, count: int, seed: int = 0) -> np.ndarray:
    """Errors in units of the limit, log-normal about `usual` times the population's median."""
    median = FAMILIARITY.median / FAMILIARITY.limit
    deviation = np.log(FAMILIARITY.high / FAMILIARITY.median) / 3.09
    return median * usual * np.exp(deviation * np.random.default_rng(seed).standard_normal(count))


def contextual(error_ratio: np.ndarray) -> ood.OodCheck:
    checked = ood.OodCheck(error_ratio, error_ratio * FAMILIARITY.limit / FAMILIARITY.median)
    return checked.in_context(ood.contextual_limit(error_ratio, FAMILIARITY))


@pytest.mark.parametrize("count", [8, 20, 60, 350])
def test_among_the_population_the_limit_is_the_population_s(count):
    for seed in range(20):
        assert ood.contextual_limit(ratios(usual=1, count=count, seed=seed), FAMILIARITY) < 1.3
    assert ood.contextual_limit(ratios(usual=1, count=4_000), FAMILIARITY) == 1


@pytest.mark.parametrize("count", [20, 60, 350])
@pytest.mark.parametrize("usual", [7, 12])
def test_a_batch_that_differs_as_a_whole_is_not_foreign(usual, count):
    whole = contextual(ratios(usual=usual, count=count))
    assert (whole.error_ratio > 1).any()
    assert whole.is_ood.mean() <= 0.05
    assert whole.is_unusual.any()


@pytest.mark.parametrize("count", [60, 350])
def test_nor_is_the_affected_half_of_a_batch(count):
    half = contextual(np.r_[ratios(usual=1, count=count // 2), ratios(usual=10, count=count // 2, seed=1)])
    assert half.is_ood.mean() <= 0.01


def test_what_stands_out_from_both_is_foreign():
    mixed = contextual(np.r_[ratios(usual=6, count=54), np.full(6, 20.0)])
    assert np.flatnonzero(mixed.is_ood).tolist() == list(range(54, 60))


@pytest.mark.parametrize("strangers", [1, 6, 30, 59, 60])
def test_what_no_camera_does_is_foreign_in_every_company(strangers):
    mixed = contextual(np.r_[ratios(usual=1, count=60 - strangers), np.full(strangers, 25.0)])
    assert mixed.is_ood.sum() == strangers


def test_of_few_images_nobody_knows_what_is_usual():
    assert contextual(np.full(7, 1.5)).is_ood.all()
    assert not contextual(np.full(8, 1.5)).is_ood.any()
    assert ood.contextual_limit(np.empty(0), FAMILIARITY) == 1


def test_the_order_of_the_images_changes_nothing():
    error_ratio = ratios(usual=7, count=41)
    limit = ood.contextual_limit(error_ratio, FAMILIARITY)
    assert ood.contextual_limit(np.random.default_rng(0).permutation(error_ratio), FAMILIARITY) == limit


def test_a_population_without_spread_has_no_other_limit():
    assert ood.contextual_limit(np.full(20, 1.5), Familiarity(1.0, 1.0, margin=1.0)) == 1


# --- the shipped bundle


@pytest.fixture(scope="module")
def networks(served_bundle):
    assert served_bundle.population.familiarity is not None, "the shipped bundle knows what it has seen"
    return OnnxNetworks(served_bundle)


@pytest.fixture(scope="module")
def frames():
    """The sample batch: 350 rendered images."""
    with zipfile.ZipFile(DATA / "shapes3d_batch.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        return np.stack([np.asarray(Image.open(BytesIO(archive.read(name))).convert("RGB")) for name in names])


@pytest.fixture(scope="module")
def real():
    paths = sorted((DATA / "shapes3d_reference").glob("*.png"))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def ood_ratio_of(images, networks, served_bundle):
    return ood.check(
        networks.encode_checked(images).reconstruction_error, served_bundle.population.familiarity
    ).ood_ratio


def test_frames_of_the_real_data_set_are_not_foreign(networks, served_bundle, real):
    """They differ from the renderings that the model was trained on, and yet they are what it is meant for."""
    assert len(real) == 30
    assert ood_ratio_of(real, networks, served_bundle).max() < 0.8


def test_rendered_frames_are_not_foreign(networks, served_bundle, frames):
    assert (ood_ratio_of(frames, networks, served_bundle) > 1).mean() <= 0.002


def test_enlarged_and_compressed_frames_are_not_foreign(networks, served_bundle, frames):
    """Sent at four times the size, as JPEG of quality 75."""
    returned = []
    for frame in frames[:100]:
        buffer = BytesIO()
        Image.fromarray(frame).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
        returned.append(np.asarray(Image.open(buffer).resize((64, 64), Image.Resampling.BILINEAR)))
    assert (ood_ratio_of(np.stack(returned), networks, served_bundle) > 1).mean() <= 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_images_are_foreign(kind, networks, served_bundle, real):
    if kind == "photographs":
        pytest.importorskip("skimage")
    made = foreign_images(kind, 60, np.random.default_rng(4), real)
    assert (ood_ratio_of(made, networks, served_bundle) > 1).mean() > 0.95


def test_the_limit_is_the_bundles_own(networks, served_bundle, frames):
    """A bundle that redraws its images worse takes more for familiar."""
    familiarity = served_bundle.population.familiarity
    worse = replace(familiarity, high=10 * familiarity.high)
    error = networks.encode_checked(frames[:5]).reconstruction_error
    here, there = (ood.check(error, known).ood_ratio for known in (familiarity, worse))
    np.testing.assert_allclose(here, 10 * there)
