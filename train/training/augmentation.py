"""Random nuisances for training: an encoder that has seen them places a treated image where the clean one is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data import nuisances
from train.data.nuisances import BORDERS

Uint8Array = NDArray[np.uint8]

# The probability that an image is moved and nothing else. A batch may fix a factor so tightly that a latent counts to a
# hundredth of its spread: beside other nuisances, which cost it more, no latent learns to stay as still as that.
MOVED_ALONE = 0.4
# The probability of each kind of nuisance for every other image.
MOVED, LIT, BLURRED, NOISY, COVERED, COMPRESSED = 0.6, 0.5, 0.3, 0.35, 0.12, 0.45
# The strongest nuisance of each kind: about half as much again as what the robustness is measured at.
FURTHEST, STEEPEST, LARGEST_ZOOM = 3.0, 3.0, 0.03  # pixels, degrees, share
BRIGHTEST, WHITEST, SHARPEST = 0.17, 0.1, 0.17  # shares of brightness, of one channel, of contrast
WIDEST, NOISIEST, LARGEST_COVER = 1.2, 16.0, 10  # pixels, grey levels, pixels a side
QUALITIES = (50, 96)
RESAMPLINGS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def augment(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Return `image`, uint8 (H, W, C), with random nuisances, in the order in which a camera adds them."""
    if rng.random() < MOVED_ALONE:
        return _move(image, rng)
    move, light, blur, noise, cover, compress = rng.random(6) < (MOVED, LIT, BLURRED, NOISY, COVERED, COMPRESSED)
    if cover:
        height, width = rng.integers(2, LARGEST_COVER + 1, 2)
        row, column = rng.integers(0, image.shape[0] - height), rng.integers(0, image.shape[1] - width)
        image = nuisances.cover(image, row, column, height, width, rng.integers(0, 256, image.shape[2]))
    if move:
        image = _move(image, rng)
    if light:
        image = _light(image, rng)
    if blur:
        image = nuisances.blur(image, rng.uniform(0.3, WIDEST))
    if noise:
        image = nuisances.noise(image, rng.uniform(2, NOISIEST), rng)
    if compress:
        quality = int(rng.integers(*QUALITIES))
        if rng.random() < 0.4:
            image = nuisances.encode_webp(image, quality)
        else:
            image = nuisances.encode_jpeg(image, quality, "4:2:0" if rng.random() < 0.8 else "4:4:4")
    return image


def _move(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    border = BORDERS[rng.integers(len(BORDERS))]
    if rng.random() < 0.5:
        rows, columns = rng.integers(-int(FURTHEST), int(FURTHEST) + 1, 2).tolist()
        return nuisances.shift(image, rows, columns, border)
    rows, columns = rng.uniform(-FURTHEST, FURTHEST, 2) * (rng.random() < 0.5)
    return nuisances.warp(
        image,
        degrees=rng.uniform(-STEEPEST, STEEPEST),
        zoom=1 + rng.uniform(-LARGEST_ZOOM, LARGEST_ZOOM) * (rng.random() < 0.5),
        rows=rows,
        columns=columns,
        border=border,
        resample=RESAMPLINGS[rng.integers(len(RESAMPLINGS))],
    )


def _light(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Change brightness and white balance, and sometimes contrast, gamma or saturation."""
    balance = 1 + rng.uniform(-WHITEST, WHITEST, image.shape[2]) * (rng.random() < 0.5)
    image = nuisances.scale_colours(image, balance * (1 + rng.uniform(-BRIGHTEST, BRIGHTEST)))
    further = rng.integers(5)
    strength = 1 + rng.uniform(-SHARPEST, SHARPEST)
    if further == 0:
        return nuisances.contrast(image, strength)
    if further == 1:
        return nuisances.gamma(image, strength)
    return nuisances.saturation(image, strength) if further == 2 else image
