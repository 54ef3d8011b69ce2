"""Nuisances: what cameras, codecs and hands do to an image without changing what it shows.

Each function takes one image, uint8 (H, W, C), and returns one of the same shape. They serve the training of robust
encoders (`train/training/augmentation.py`) and the measurement of robustness (`train/benchmarks/nuisances.py`).
"""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter

Uint8Array = NDArray[np.uint8]
# How pixels from outside the image are filled: as numpy.pad names it; "constant" is black.
Border = Literal["edge", "reflect", "wrap", "constant"]
BORDERS: tuple[Border, ...] = ("edge", "reflect", "wrap", "constant")
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as JPEG and Pillow weigh the channels


def shift(image: Uint8Array, rows: int, columns: int, border: Border = "edge") -> Uint8Array:
    """Move the image by whole pixels, down and to the right."""
    height, width = image.shape[:2]
    margin = max(abs(rows), abs(columns))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode=border)
    return np.ascontiguousarray(padded[margin - rows :][:height, margin - columns :][:, :width])


def warp(
    image: Uint8Array,
    *,
    degrees: float = 0.0,
    zoom: float = 1.0,
    rows: float = 0.0,
    columns: float = 0.0,
    border: Border = "edge",
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Uint8Array:
    """Rotate the image about its centre, zoom into it, and move it by any part of a pixel."""
    height, width = image.shape[:2]
    margin = math.ceil(abs(math.radians(degrees)) * max(height, width) + abs(1 / zoom - 1) * max(height, width))
    margin += math.ceil(max(abs(rows), abs(columns))) + 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode=border)
    cosine, sine = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    centre_x, centre_y = width / 2, height / 2
    # From a place in the result to the place in the padded image, as Pillow wants it.
    matrix = (
        cosine,
        sine,
        margin + centre_x - cosine * (centre_x + columns) - sine * (centre_y + rows),
        -sine,
        cosine,
        margin + centre_y + sine * (centre_x + columns) - cosine * (centre_y + rows),
    )
    source = Image.fromarray(padded.squeeze(2) if image.shape[2] == 1 else padded)
    return _of(source.transform((width, height), Image.Transform.AFFINE, matrix, resample), image)


def scale_colours(image: Uint8Array, factors: ArrayLike) -> Uint8Array:
    """Multiply the channels by `factors`: one number (brightness), or one for each channel (white balance)."""
    return to_uint8(image * np.asarray(factors, dtype=np.float64))


def contrast(image: Uint8Array, factor: float) -> Uint8Array:
    """Multiply the differences from the image's mean grey level by `factor`."""
    mean = float(image.mean())
    return to_uint8(mean + factor * (image - mean))


def gamma(image: Uint8Array, exponent: float) -> Uint8Array:
    """Raise the grey levels, as parts of 255, to the power `exponent`."""
    return np.asarray(to_uint8(255 * (np.arange(256) / 255) ** exponent)[image])


def saturation(image: Uint8Array, factor: float) -> Uint8Array:
    """Multiply the differences of a pixel's channels from its grey level by `factor`. Grey images stay as they are."""
    if image.shape[2] == 1:
        return image
    grey = (image @ GREY)[..., None]
    return to_uint8(grey + factor * (image - grey))


def noise(image: Uint8Array, deviation: float, rng: np.random.Generator) -> Uint8Array:
    """Add independent Gaussian noise of this standard deviation, in grey levels."""
    return to_uint8(image + deviation * rng.standard_normal(image.shape, dtype=np.float32))


def blur(image: Uint8Array, radius: float) -> Uint8Array:
    """Blur with a Gaussian of this standard deviation, in pixels."""
    return _of(_picture(image).filter(ImageFilter.GaussianBlur(radius)), image)


def rescale(image: Uint8Array, factor: float, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Uint8Array:
    """Resize the image by `factor`, and back."""
    height, width = image.shape[:2]
    small = _picture(image).resize((max(round(width * factor), 1), max(round(height * factor), 1)), resample)
    return _of(small.resize((width, height), resample), image)


def encode_jpeg(image: Uint8Array, quality: int, subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0") -> Uint8Array:
    """Compress with JPEG, and decode."""
    return _encode(image, "JPEG", quality=quality, subsampling=subsampling)


def encode_webp(image: Uint8Array, quality: int) -> Uint8Array:
    """Compress with lossy WebP, and decode."""
    return _encode(image, "WEBP", quality=quality)


def cover(image: Uint8Array, row: int, column: int, height: int, width: int, colour: ArrayLike) -> Uint8Array:
    """Cover a rectangle with one colour."""
    covered = image.copy()
    covered[row : row + height, column : column + width] = colour
    return covered


def to_uint8(values: NDArray[np.number]) -> Uint8Array:
    """Round to grey levels, and clip to what uint8 holds."""
    pixels: Uint8Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def _encode(image: Uint8Array, format_: str, **options: object) -> Uint8Array:
    buffer = io.BytesIO()
    _picture(image).save(buffer, format_, **options)
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return _of(decoded.convert("L" if image.shape[2] == 1 else "RGB"), image)


def _picture(image: Uint8Array) -> Image.Image:
    return Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)


def _of(picture: Image.Image, image: Uint8Array) -> Uint8Array:
    return np.asarray(picture).reshape(image.shape)
