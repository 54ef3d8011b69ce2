"""How far an image is from what the decoder draws of it: plainly, and with tolerance for what cameras do.

The plain error of a camera that moved by two pixels is as large as that of two frames spliced together. The tolerant
error excuses what does not change the content of an image: a move of a few pixels, more or less light, a tint, grain.
What remains is foreign to the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.population import Familiarity
from service.core.types import Float64Array

# How much brighter or darker a channel may be as a whole.
DARKEST, BRIGHTEST = 0.8, 1.25
# How much of what nothing excuses is foreign, in the population's high errors. On 3D Shapes, 1.5 calls 1.5% of the
# single images foreign that moved by two pixels, and finds 99.91% of the judged foreign kinds; 1.0: 11% and 99.96%.
UNEXCUSED = 1.5


def familiar_error(images: NDArray[np.uint8], decoded: NDArray[np.uint8], familiarity: Familiarity) -> Float64Array:
    """Return the error (n,) of images that is compared with the population's, both arguments uint8 (n, H, W, C).

    It is the plain error, up to the limit of `familiarity`. Beyond the limit, where `familiarity` has a tolerance, it
    is at most `margin` times the tolerant error, over UNEXCUSED: an image is out of distribution only if what nothing
    excuses exceeds UNEXCUSED times the population's `high` error.
    """
    errors = reconstruction_error(images, decoded)
    if familiarity.tolerance:
        for row in np.flatnonzero(errors > familiarity.limit):
            tolerant = tolerant_error(images[row], decoded[row], familiarity.tolerance)
            errors[row] = min(errors[row], familiarity.margin * tolerant / UNEXCUSED)
    return errors


def reconstruction_error(images: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> Float64Array:
    """Return the mean squared difference (n,), in grey levels squared, of images and `decoded`, both (n, H, W, C).

    `decoded` is what the decoder draws from the means of the images.
    """
    # One image at a time: the differences stay in the processor's cache, which is several times faster.
    differences = (
        np.subtract(image, drawn, dtype=np.int16).astype(np.float32)
        for image, drawn in zip(images, decoded, strict=True)
    )
    squares = np.array([np.vdot(difference, difference) for difference in differences], dtype=np.float64)
    return squares / np.prod(images.shape[1:])


def tolerant_error(image: NDArray[np.uint8], decoded: NDArray[np.uint8], radius: int) -> float:
    """Return the mean squared difference of one image (H, W, C) from what `decoded` shows within `radius` pixels.

    Each channel is first scaled to that of `decoded`, within DARKEST and BRIGHTEST. Means over 3 x 3 pixels are then
    compared with the range of `decoded` in the window around them; only what lies outside that range counts. The
    outermost 2 * radius pixels are left out, because a camera that moves shows something else there.
    """
    margin = min(2 * radius, (min(image.shape[:2]) - 1) // 2)  # something is left of the smallest image
    inner = slice(margin, -margin or None)
    image, drawn = image[inner, inner], decoded[inner, inner].astype(np.float32)
    scale = (image * drawn).sum(axis=(0, 1)) / np.maximum(np.square(drawn).sum(axis=(0, 1)), 1)
    smooth = _smooth(image / np.clip(scale, DARKEST, BRIGHTEST).astype(np.float32))
    lowest, highest = decoded, decoded
    for axis in (0, 1):
        lowest, highest = _window(np.minimum, lowest, radius, axis), _window(np.maximum, highest, radius, axis)
    outside = np.maximum(np.maximum(lowest[inner, inner] - smooth, smooth - highest[inner, inner]), 0)
    return float(np.square(outside).mean(dtype=np.float64))


def _smooth(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means (H, W, C) over 3 x 3 pixels. Pixels beyond the edge are those at the edge."""
    for axis in (0, 1):
        last = image.shape[axis] - 1
        before, after = np.r_[0, 0:last], np.r_[1 : last + 1, last]
        image = (image + image.take(before, axis) + image.take(after, axis)) / np.float32(3)
    return image


def _window(extreme: np.ufunc, image: NDArray[np.uint8], radius: int, axis: int) -> NDArray[np.uint8]:
    """Return the extreme (H, W, C) of each pixel and those within `radius` along one axis."""
    moved = np.moveaxis(image, axis, 0)
    result = moved.copy()
    for distance in range(1, radius + 1):
        extreme(result[distance:], moved[:-distance], out=result[distance:])
        extreme(result[:-distance], moved[distance:], out=result[:-distance])
    return np.moveaxis(result, 0, axis)
