"""Draw the images that the model of tests/data/exact_bundle knows: patterns on grey, each as strong as its latent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE, BLOCK, CHANNELS = 32, 4, 3
GRID = SIZE // BLOCK
IMAGE_SHAPE = (SIZE, SIZE, CHANNELS)
FEATURES = GRID * GRID * CHANNELS
NAMES = ("size", "hue", "angle", "shine", "depth", "spare")
LATENTS = len(NAMES)
LIVE = 5
MIDDLE, AMPLITUDE = 128, 16
LATENT_STEPS = 64  # the decoder rounds latents to 1/64 first, so that its sums are of integers too


def patterns() -> NDArray[np.int64]:
    """Return one pattern of -1 and 1 for each latent, (L, FEATURES): Walsh functions, orthogonal, each with sum 0."""
    place = np.arange(GRID)
    halves = [1 - 2 * ((place >> bit) & 1) for bit in (2, 1, 0)]
    plain = np.ones(GRID, dtype=np.int64)
    planes = [
        np.outer(rows, columns)
        for rows, columns in (
            (halves[0], plain),
            (plain, halves[0]),
            (halves[1], plain),
            (halves[0], halves[0]),
            (plain, halves[1]),
            (halves[1], halves[1]),
        )
    ]
    return np.stack([np.repeat(plane[..., None], CHANNELS, axis=2).ravel() for plane in planes])


def pictures(latents: NDArray[np.float64], noise: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw latents (n, L) as the decoder does, plus `noise` (n, SIZE, SIZE, CHANNELS), as uint8 images."""
    steps = np.round(latents * LATENT_STEPS).astype(np.int64)
    features = MIDDLE + np.round(AMPLITUDE * (steps @ patterns()) / LATENT_STEPS)
    grid = features.reshape(-1, GRID, GRID, CHANNELS)
    images = grid.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2) + noise
    return np.clip(images, 0, 255).astype(np.uint8)


def random_latents(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return latents (count, L) of ordinary images: the first two go together, the last one never varies."""
    latents = random.normal(size=(count, LATENTS))
    latents[:, 1] = 0.6 * latents[:, 0] + 0.8 * latents[:, 1]
    latents[:, LIVE:] = 0
    return latents
