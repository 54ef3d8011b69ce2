"""Out-of-distribution images, to measure whether the service detects them.

`KINDS` are judged: anyone would call them out of distribution. `HARD_KINDS` differ little from the frames that they are
made from, and are measured without a goal. All images are made from the frames and from pictures that scikit-learn and
scikit-image contain. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from gzip import open as open_gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Uint8Array = NDArray[np.uint8]
Make = Callable[[int, np.random.Generator, Uint8Array], Uint8Array]

SIDE = 64
SHAPE = (SIDE, SIDE, 3)
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "moon", "retina", "rocket")
TEXTURES = ("brick", "grass", "gravel")


def foreign_images(
    kind: str, count: int, rng: np.random.Generator, frames: Uint8Array, digits: Path | None = None
) -> Uint8Array:
    """Return `count` images of `kind`, uint8 (count, 64, 64, 3).

        frames  uint8 (m, 64, 64, 3), m >= 2: in-population images, from which some kinds are made
        digits  an MNIST file of images (idx, gzipped) in place of scikit-learn's own handwritten digits

    Raises KeyError for an unknown kind.
    """
    if kind == "digits" and digits is not None:
        return _drawn(_mnist(digits), count, rng)
    return (KINDS | HARD_KINDS)[kind](count, rng, frames)


# --- pictures of something else


def _digits(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return _drawn(_small_digits(), count, rng)


def _photographs(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    photographs = _sample_photographs()
    return np.stack([_crop(photographs[index], rng) for index in rng.integers(0, len(photographs), count)])


def _sprites(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    """Draw one white ellipse or rectangle, rotated, on black, as in dSprites."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    sprites = []
    for _ in range(count):
        (row, column), angle = rng.uniform(18, 46, 2), rng.uniform(0, np.pi)
        across = np.cos(angle) * (columns - column) + np.sin(angle) * (rows - row)
        along = np.cos(angle) * (rows - row) - np.sin(angle) * (columns - column)
        across, along = across / rng.uniform(5, 14), along / rng.uniform(5, 14)
        inside = across**2 + along**2 < 1 if rng.random() < 0.5 else np.maximum(abs(across), abs(along)) < 1
        sprites.append(np.where(inside, 255, 0))
    return _rgb(np.stack(sprites))


# --- no picture at all


def _flat_colours(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    colours = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (count, *SHAPE)).copy()


def _gradients(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    """Draw gradients from one colour to another in any direction."""
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    share = (np.cos(angle) * columns + np.sin(angle) * rows) / np.sqrt(2) + 0.5
    start, end = rng.uniform(0, 255, (2, count, 1, 1, 3))
    return _uint8(start + (end - start) * share[..., None])


def _uniform_noise(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def _gaussian_noise(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    colour, spread = rng.uniform(0, 255, (count, 1, 1, 3)), rng.uniform(20, 80, (count, 1, 1, 1))
    return _uint8(rng.normal(colour, spread, (count, *SHAPE)))


def _smooth_noise(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    coarse = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([_resized(image, Image.Resampling.BICUBIC) for image in coarse])


# --- frames, spoilt


def _upside_down(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return _some(frames, count, rng)[:, ::-1].copy()


def _sideways(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return np.rot90(_some(frames, count, rng), axes=(1, 2)).copy()


def _inverted(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return 255 - _some(frames, count, rng)


def _shuffled(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    """Shuffle the sixteen tiles of each image."""
    tiles = _some(frames, count, rng).reshape(count, 4, 16, 4, 16, 3).swapaxes(2, 3).reshape(count, 16, 16, 16, 3)
    mixed = np.stack([image[rng.permutation(16)] for image in tiles])
    return mixed.reshape(count, 4, 4, 16, 16, 3).swapaxes(2, 3).reshape(count, *SHAPE)


def _half_covered(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return _covered(_some(frames, count, rng), rng, share=0.5)


def _spliced(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    """Join the left half of one frame and the right half of another."""
    left = rng.integers(0, len(frames), count)
    right = (left + rng.integers(1, len(frames), count)) % len(frames)  # never the same frame
    return np.concatenate([frames[left][:, :, : SIDE // 2], frames[right][:, :, SIDE // 2 :]], axis=2)


def _quarter_covered(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return _covered(_some(frames, count, rng), rng, share=0.25)


def _tenth_covered(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return _covered(_some(frames, count, rng), rng, share=0.1)


def _blurred(radius: float) -> Make:
    def blur(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
        filtered = (
            Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)) for image in _some(frames, count, rng)
        )
        return np.stack([np.asarray(image) for image in filtered])

    return blur


def _grainy(spread: float) -> Make:
    def add_noise(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
        return _uint8(rng.normal(_some(frames, count, rng), spread))

    return add_noise


def _grey(count: int, rng: np.random.Generator, frames: Uint8Array) -> Uint8Array:
    return _rgb(_some(frames, count, rng) @ np.array([0.299, 0.587, 0.114]))


KINDS: dict[str, Make] = {
    "digits": _digits,
    "photographs": _photographs,
    "sprites": _sprites,
    "flat colours": _flat_colours,
    "gradients": _gradients,
    "uniform noise": _uniform_noise,
    "gaussian noise": _gaussian_noise,
    "smooth noise": _smooth_noise,
    "upside down": _upside_down,
    "sideways": _sideways,
    "inverted colours": _inverted,
    "shuffled tiles": _shuffled,
    "half covered": _half_covered,
    "spliced": _spliced,
    "grey": _grey,
    "blurred, radius 6": _blurred(6),
}
HARD_KINDS: dict[str, Make] = {
    "quarter covered": _quarter_covered,
    "tenth covered": _tenth_covered,
    "blurred, radius 3": _blurred(3),
    "blurred, radius 1.5": _blurred(1.5),
    "grainy, sd 30": _grainy(30),
    "grainy, sd 10": _grainy(10),
}


# --- helpers


def _some(frames: Uint8Array, count: int, rng: np.random.Generator) -> Uint8Array:
    """Return a copy of `count` random frames."""
    return np.asarray(frames[rng.integers(0, len(frames), count)])


def _covered(images: Uint8Array, rng: np.random.Generator, share: float) -> Uint8Array:
    """Cover each image with a bar of one grey, from black to white, along a random edge."""
    for image in images:
        bar = np.rot90(image, int(rng.integers(4)))[: round(share * SIDE)]  # a view: writing to it writes to the image
        bar[:] = rng.integers(0, 256)
    return images


def _drawn(digits: Uint8Array, count: int, rng: np.random.Generator) -> Uint8Array:
    return _rgb(np.stack([_resized(digits[index]) for index in rng.integers(0, len(digits), count)]))


@cache
def _small_digits() -> Uint8Array:
    from sklearn.datasets import load_digits

    return _uint8(load_digits().images * (255 / 16))


@cache
def _mnist(path: Path) -> Uint8Array:
    """Return the images uint8 (N, 28, 28) of a gzipped idx file: a header of sixteen bytes, then the pixels."""
    with open_gzip(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)


@cache
def _sample_photographs() -> list[Uint8Array]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    bundled = [getattr(data, name)() for name in PHOTOGRAPHS + TEXTURES]
    return [*(image if image.ndim == 3 else _rgb(image) for image in bundled), *load_sample_images().images]


def _crop(photograph: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Return a random square, between the photograph's full side and a quarter of it."""
    height, width = photograph.shape[:2]
    side = int(rng.integers(min(height, width) // 4, min(height, width) + 1))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    return _resized(photograph[top : top + side, left : left + side])


def _resized(image: Uint8Array, resample: Image.Resampling = Image.Resampling.BILINEAR) -> Uint8Array:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), resample))


def _rgb(grey: NDArray[np.number]) -> Uint8Array:
    return np.stack([_uint8(grey)] * 3, axis=-1)


def _uint8(values: NDArray[np.number]) -> Uint8Array:
    pixels: Uint8Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
