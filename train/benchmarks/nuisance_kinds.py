"""The nuisances that the benchmark applies: a table of names, each with what it does to the images of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data import nuisances
from train.data.nuisances import Border

Uint8Array = NDArray[np.uint8]
Treat = Callable[[Uint8Array, np.random.Generator], Uint8Array]

DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


@dataclass(frozen=True)
class Nuisance:
    """A nuisance: `treat` takes the images (n, H, W, C) of one batch. The goals are for those that are `judged`."""

    treat: Treat
    judged: bool = False


def _each(change: Callable[[Uint8Array], Uint8Array], judged: bool = False) -> Nuisance:
    """Return a nuisance that changes every image in the same way."""
    return Nuisance(lambda images, rng: np.stack([change(image) for image in images]), judged)


def _moved(pixels: int, border: Border = "edge", judged: bool = False) -> Nuisance:
    """Return the nuisance of a camera that moved once: all images of a batch in one direction."""

    def move(images: Uint8Array, rng: np.random.Generator) -> Uint8Array:
        rows, columns = DIRECTIONS[rng.integers(len(DIRECTIONS))]
        return np.stack([nuisances.shift(image, rows * pixels, columns * pixels, border) for image in images])

    return Nuisance(move, judged)


def _shaken(pixels: int, judged: bool = False) -> Nuisance:
    """Return the nuisance of a camera that moves: every image in a direction of its own, or not at all."""

    def shake(images: Uint8Array, rng: np.random.Generator) -> Uint8Array:
        moves = rng.integers(-pixels, pixels + 1, (len(images), 2)).tolist()
        return np.stack([nuisances.shift(image, *move) for image, move in zip(images, moves, strict=True)])

    return Nuisance(shake, judged)


def _noisy(deviation: float, judged: bool = False) -> Nuisance:
    return Nuisance(lambda images, rng: np.stack([nuisances.noise(image, deviation, rng) for image in images]), judged)


def _cover(images: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Cover 6 x 6 pixels of every image, such as dust, in a place of its own."""
    rows, columns = rng.integers(0, np.array(images.shape[1:3])[:, None] - 6, (2, len(images))).tolist()
    places = zip(images, rows, columns, strict=True)
    return np.stack([nuisances.cover(image, row, column, 6, 6, 40) for image, row, column in places])


NUISANCES: dict[str, Nuisance] = {
    "none": _each(lambda image: image),
    "JPEG 4:2:0, quality 75": _each(partial(nuisances.encode_jpeg, quality=75), judged=True),
    "WebP, quality 80": _each(partial(nuisances.encode_webp, quality=80), judged=True),
    "brightness -10%": _each(partial(nuisances.scale_colours, factors=0.9), judged=True),
    "brightness +10%": _each(partial(nuisances.scale_colours, factors=1.1), judged=True),
    "shifted by 2 px": _moved(2, judged=True),
    "shifted by up to 1 px, each": _shaken(1, judged=True),
    "rotated by 2 degrees": _each(partial(nuisances.warp, degrees=2.0), judged=True),
    "noise, sd 10": _noisy(10, judged=True),
    "blur, radius 0.7": _each(partial(nuisances.blur, radius=0.7), judged=True),
    "JPEG 4:2:0, quality 40": _each(partial(nuisances.encode_jpeg, quality=40)),
    "WebP, quality 40": _each(partial(nuisances.encode_webp, quality=40)),
    "brightness -25%": _each(partial(nuisances.scale_colours, factors=0.75)),
    "brightness +20%": _each(partial(nuisances.scale_colours, factors=1.2)),
    "contrast -20%": _each(partial(nuisances.contrast, factor=0.8)),
    "gamma 0.8": _each(partial(nuisances.gamma, exponent=0.8)),
    "white balance, red +8%, blue -8%": _each(partial(nuisances.scale_colours, factors=(1.08, 1.0, 0.92))),
    "saturation -20%": _each(partial(nuisances.saturation, factor=0.8)),
    "shifted by 2 px, black border": _moved(2, "constant"),
    "shifted by 2 px, wrapped": _moved(2, "wrap"),
    "shifted by 4 px": _moved(4),
    "shifted by up to 3 px, each": _shaken(3),
    "rotated by -2 degrees, black corners": _each(partial(nuisances.warp, degrees=-2.0, border="constant")),
    "rotated by 4 degrees": _each(partial(nuisances.warp, degrees=4.0)),
    "zoomed by 4%": _each(partial(nuisances.warp, zoom=1.04)),
    "noise, sd 20": _noisy(20),
    "blur, radius 1.5": _each(partial(nuisances.blur, radius=1.5)),
    "half the size and back": _each(partial(nuisances.rescale, factor=0.5)),
    "four times the size and back": _each(partial(nuisances.rescale, factor=4.0, resample=Image.Resampling.BILINEAR)),
    "6 x 6 px covered": Nuisance(_cover),
}
