"""The reconstruction error with tolerance: its naive twin, what it excuses, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from service.core.detect.reconstruction import (
    BRIGHTEST,
    DARKEST,
    UNEXCUSED,
    familiar_error,
    reconstruction_error,
    tolerant_error,
)
from service.core.population import Familiarity

RADIUS = 2


@pytest.fixture
def scene() -> np.ndarray:
    """Two coloured areas and a bright square, 32 x 32."""
    image = np.full((32, 32, 3), (120, 60, 30), dtype=np.uint8)
    image[18:] = (40, 90, 160)
    image[12:20, 13:21] = (190, 180, 20)
    return image


def naive(image: np.ndarray, decoded: np.ndarray, radius: int) -> float:
    margin = 2 * radius
    inner = image[margin:-margin, margin:-margin].astype(np.float64)
    drawn = decoded[margin:-margin, margin:-margin].astype(np.float64)
    scaled = np.empty_like(inner)
    for channel in range(inner.shape[2]):
        scale = (inner[..., channel] * drawn[..., channel]).sum() / max((drawn[..., channel] ** 2).sum(), 1)
        scaled[..., channel] = inner[..., channel] / np.clip(scale, DARKEST, BRIGHTEST)
    padded = np.pad(scaled, ((1, 1), (1, 1), (0, 0)), mode="edge")
    total = 0.0
    for row, column, channel in np.ndindex(inner.shape):
        mean = padded[row : row + 3, column : column + 3, channel].mean()
        top, left = row + margin - radius, column + margin - radius
        window = decoded[top : top + 2 * radius + 1, left : left + 2 * radius + 1, channel]
        total += max(window.min() - mean, mean - window.max(), 0) ** 2
    return total / inner.size


@pytest.mark.parametrize(("channels", "radius"), [(3, 1), (3, 2), (1, 3)])
def test_it_is_the_naive_one(channels, radius):
    image, decoded = np.random.default_rng(radius).integers(0, 256, (2, 20, 16, channels), dtype=np.uint8)
    assert tolerant_error(image, decoded, radius) == pytest.approx(naive(image, decoded, radius), rel=1e-4)


@pytest.mark.parametrize("moved", [(0, 1), (1, -1), (-1, 0)])
def test_a_small_move_is_excused(scene, moved):
    shifted = np.roll(scene, moved, axis=(0, 1))
    plain = reconstruction_error(shifted[None], scene[None])[0]
    assert tolerant_error(shifted, scene, RADIUS) < 0.1 * plain


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_light_is_excused(scene, factor):
    lit = np.rint(scene * factor).astype(np.uint8)
    assert tolerant_error(lit, scene, RADIUS) < 1 < reconstruction_error(lit[None], scene[None])[0]


def test_another_object_is_not(scene):
    other = scene.copy()
    other[12:20, 13:21] = (20, 20, 190)
    plain = reconstruction_error(other[None], scene[None])[0]
    assert tolerant_error(other, scene, RADIUS) > 0.3 * plain


def test_the_smallest_images_have_something_left():
    image, decoded = np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 200, np.uint8)
    assert tolerant_error(image, decoded, RADIUS) > 0


def test_only_errors_beyond_the_limit_are_excused(scene):
    other = scene.copy()
    other[:] = (10, 200, 10)
    images = np.stack([scene, np.roll(scene, (1, 1), axis=(0, 1)), other])
    decoded = np.stack([scene] * 3)
    plain = reconstruction_error(images, decoded)
    assert familiar_error(images, decoded, Familiarity(1.0, 2.0)).tolist() == plain.tolist()
    wide = Familiarity(1.0, 10 * plain.max(), tolerance=RADIUS)
    assert familiar_error(images, decoded, wide).tolist() == plain.tolist()
    narrow = Familiarity(1.0, plain[1] / 4, tolerance=RADIUS)
    excused = familiar_error(images, decoded, narrow)
    assert plain[1] > narrow.limit > excused[1]
    assert excused[2] > narrow.limit
    assert excused[1] == 3 * tolerant_error(images[1], scene, RADIUS) / UNEXCUSED
