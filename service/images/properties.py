"""Properties of photographs that have names: brightness, contrast, colour, sharpness, noise, blank areas, and the
shape and size of the file.

A network's features tell what a picture shows, in numbers that nobody can read. These tell how it looks, in words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.images.spec import Uint8Array

Float32Array = NDArray[np.float32]

# Weights of red, green and blue in luma (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Neighbouring pixels that differ by no more grey levels are blank.
BLANK = 2.0
# Added before a logarithm, in grey levels: differences below it cannot be seen.
FAINT = 0.1


@dataclass(frozen=True)
class Property:
    """A property's name, its unit, and what more of it looks like."""

    name: str
    unit: str
    more: str


PIXEL_PROPERTIES = (
    Property("brightness", "grey levels", "brighter"),
    Property("contrast", "grey levels", "more contrast"),
    Property("colourfulness", "grey levels", "more colourful"),
    Property("red against green", "grey levels", "redder"),
    Property("yellow against blue", "grey levels", "yellower"),
    Property("sharpness", "log2 grey levels", "sharper"),
    Property("noise", "log2 grey levels", "noisier"),
    Property("blank share", "share of pixels", "more blank area"),
)
# Of the image as it came, before it is resized.
FILE_PROPERTIES = (
    Property("aspect ratio", "log2 of width to height", "wider"),
    Property("pixel count", "log2 pixels", "larger"),
)
PROPERTIES = PIXEL_PROPERTIES + FILE_PROPERTIES


def measure(images: Uint8Array, sizes: NDArray[np.int64]) -> Float32Array:
    """Measure the PROPERTIES (n, P) of images, uint8 (n, H, W, 3), whose sizes were (n, 2) before they were resized."""
    return np.hstack([measure_pixels(images), measure_files(sizes)])


def measure_files(sizes: NDArray[np.int64]) -> Float32Array:
    """Measure the FILE_PROPERTIES (n, 2) of images of sizes (n, 2): width and height, at least 1."""
    width, height = np.log2(sizes).T
    return np.stack([width - height, width + height], axis=1).astype(np.float32)


def measure_pixels(images: Uint8Array) -> Float32Array:
    """Measure the PIXEL_PROPERTIES (n, p) of images, uint8 (n, H, W, 3), H and W at least 3.

    Colourfulness is that of Hasler & Süsstrunk (2003). Sharpness is the standard deviation of the Laplacian of the
    luma (Pech-Pacheco et al. 2000), noise the estimate of Immerkaer (1996), both as binary logarithms: twice as much is
    one more.
    """
    if len(images) == 0:
        return np.empty((0, len(PIXEL_PROPERTIES)), np.float32)
    return np.stack([_measure_one(image) for image in images])


def _measure_one(image: Uint8Array) -> Float32Array:
    colours = image.astype(np.float32)
    luma = colours @ LUMA
    red, green, blue = colours[::2, ::2].reshape(-1, 3).T
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    colourfulness = spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    across, down = np.diff(luma, axis=1), np.diff(luma, axis=0)
    second_across, second_down = np.diff(across, axis=1)[1:-1], np.diff(down, axis=0)[:, 1:-1]
    # The second difference of second differences: structure cancels, noise does not.
    mask = np.diff(second_down, 2, axis=1) if second_down.shape[1] > 2 else second_down
    noise = np.sqrt(np.pi / 2) / 6 * np.abs(mask).mean()
    blank = (np.abs(across)[:-1] <= BLANK) & (np.abs(down)[:, :-1] <= BLANK)
    return np.array(
        [
            luma.mean(),
            luma.std(),
            colourfulness,
            red_green.mean(),
            yellow_blue.mean(),
            np.log2((second_across + second_down).std() + FAINT),
            np.log2(noise + FAINT),
            blank.mean(),
        ],
        dtype=np.float32,
    )
