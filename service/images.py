"""Images as they come, to rows as the encoder takes them: uint8 (H, W, C), one by one, each with its own error.

An image of the right size and mode passes unchanged. Others are turned as EXIF says, laid on white
where they are transparent, converted to the bundle's channels and resized (the aspect ratio is not kept).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from service.bundle import ImageSpec
from service.errors import InvalidInput, MisfitError, ShapeMismatch, TooLarge, UndecodableImage

Uint8Array = NDArray[np.uint8]
Resize = Literal["fit", "reject"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
# From here on images are decoded one at a time, so that memory holds one of them whatever comes at once.
_LARGE_PIXELS = 4_000_000
_one_large_image = threading.Lock()

# Our limit is tested on every header before decoding; Pillow's own would cut in at another size.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Upload:
    """One image of a request: what the client calls it, and how to get at its content.

    `read` returns an image file's bytes, or pixels uint8 (H, W) or (H, W, C); it may raise MisfitError.
    """

    id: str
    read: Callable[[], bytes | memoryview | Uint8Array]


@dataclass(frozen=True)
class Rows:
    """`pixels` uint8 (k, H, W, C) of the uploads that could be used; the others' errors by position."""

    pixels: Uint8Array
    errors: dict[int, MisfitError]


def read_rows(uploads: Sequence[Upload], spec: ImageSpec, resize: Resize, max_pixels: int) -> Rows:
    """Decode every upload that can be decoded, in order."""
    pixels = np.empty((len(uploads), *spec.shape), dtype=np.uint8)
    errors: dict[int, MisfitError] = {}
    for position, upload in enumerate(uploads):
        try:
            pixels[position - len(errors)] = to_row(upload.read(), spec, resize, max_pixels)
        except InvalidInput as error:
            errors[position] = error
    return Rows(pixels[: len(uploads) - len(errors)], errors)


def to_row(content: bytes | memoryview | Uint8Array, spec: ImageSpec, resize: Resize, max_pixels: int) -> Uint8Array:
    """One image as uint8 `spec.shape`. Raises UndecodableImage, TooLarge or ShapeMismatch."""
    if isinstance(content, np.ndarray):
        pixels = content if content.ndim == 3 else content[..., None]
        if pixels.shape == spec.shape:
            return pixels
        _check_pixels((pixels.shape[1], pixels.shape[0]), max_pixels)
        return _conform(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), spec, resize)
    try:
        return _decode(content, spec, resize, max_pixels)
    except MisfitError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged input
        raise UndecodableImage(
            f"The image cannot be decoded: {error}.", "It may be damaged or cut short: send it again."
        ) from error


def _decode(content: bytes | memoryview, spec: ImageSpec, resize: Resize, max_pixels: int) -> Uint8Array:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UndecodableImage(
            f"{len(content)} bytes that begin with {bytes(content[:12])!r} cannot be read as an image; "
            f"expected {', '.join(FORMATS)}.",
            "Send the image file's own bytes. URLs are never fetched.",
        ) from error
    with image, _one_large_image if image.width * image.height > _LARGE_PIXELS else nullcontext():
        _check_pixels(image.size, max_pixels)
        if resize == "fit":
            # A large JPEG is decoded at a fraction of its size, twice what the model takes or more.
            image.draft(None, (2 * max(spec.width, spec.height),) * 2)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _conform(image, spec, resize)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise TooLarge(
            f"The image has {width} x {height} pixels; at most {max_pixels} are taken.",
            "Scale it down before sending.",
        )


def _conform(image: Image.Image, spec: ImageSpec, resize: Resize) -> Uint8Array:
    """A decoded image as uint8 `spec.shape`."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UndecodableImage(
            f"The image has 32 bits a pixel (mode {image.mode}), whose range is not known; expected 8 or 16.",
            "Convert it to 8 bits a channel.",
        )
    final_mode = "RGB" if spec.channels == 3 else "L"
    mode = "RGBA" if image.has_transparency_data else final_mode
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (spec.width, spec.height):
        if resize == "reject":
            raise ShapeMismatch(
                f"The image has {image.width} x {image.height} pixels; the model takes "
                f'{spec.width} x {spec.height}, and resize is "reject".',
                'Send images of that size, or set resize to "fit".',
            )
        image = image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(final_mode)
    return np.asarray(image).reshape(spec.shape)
