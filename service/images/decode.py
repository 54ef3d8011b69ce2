"""Decode images to rows for the encoder, uint8 (H, W, C), one by one: an image that fails has an error of its own.

An image of the right size and mode passes unchanged. Any other image is turned as EXIF says, laid on white where it is
transparent, converted to the bundle's channels and resized; the aspect ratio is not kept.

The cost of decoding is estimated from the header, before any pixel is decoded (`Opened.cost`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from service.errors import InvalidInput, MisfitError, ShapeMismatch, TooLarge, UndecodableImage
from service.images import png_chunks
from service.images.spec import Resize, Spec, Uint8Array

Content = bytes | memoryview | Uint8Array
IntArray = NDArray[np.int64]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MIB = 1024 * 1024
ORIENTATION = 0x0112  # EXIF
START_OF_SCAN = b"\xff\xda"  # JPEG

# The peak of bytes that Pillow holds for each pixel, by mode, conversion and resizing included (measured).
BYTES_PER_PIXEL = {"1": 2, "L": 2, "P": 9, "RGB": 4, "RGBA": 8, "I;16": 6, "I;16B": 6, "I;16L": 6, "I;16N": 6}
MOST_BYTES_PER_PIXEL = 12  # of other modes, and of RGB with a transparent colour
# Further bytes for each pixel of a WebP: libwebp draws on two canvases of its own.
WEBP_CANVAS_BYTES = 12
# A JPEG of several scans keeps two bytes for each coefficient. Every scan passes through all of them, which takes as
# long as writing a quarter of a byte for each pixel.
COEFFICIENT_BYTES, SCANS_PER_BYTE = 2, 4

# Pillow's own limit is off: `Limits` are checked on every header before decoding.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Limits:
    """Limits on decoding one image.

    max_pixels  width times height
    max_cost    bytes of memory; None for no limit
    """

    max_pixels: int
    max_cost: int | None = None

    def check_pixels(self, size: tuple[int, int]) -> None:
        """Raise TooLarge where an image of `size`, (width, height), has too many pixels."""
        width, height = size
        if width * height > self.max_pixels:
            raise TooLarge(
                f"The image has {width} x {height} pixels; at most {self.max_pixels} are taken.",
                "Scale it down before sending.",
            )

    def check_cost(self, cost: int, size: tuple[int, int], length: int) -> None:
        """Raise TooLarge where decoding takes too many bytes, `cost`, of an image of `size` in a file of `length`
        bytes.
        """
        if self.max_cost is not None and cost > self.max_cost:
            raise TooLarge(
                f"The image has {size[0]} x {size[1]} pixels in a file of {length} bytes: decoding it takes some "
                f"{cost // MIB} MiB; at most {self.max_cost // MIB} MiB are taken for one image of this request.",
                "Scale it down before sending. The more is sent in a request, the more its images may take "
                "(MISFIT_MAX_DECODE_RATIO), up to MISFIT_MAX_DECODE_BYTES.",
            )


@dataclass(frozen=True)
class Upload:
    """One image of a request: the client's id for it, and a function that reads its content.

    `read` returns an image file's bytes, or pixels uint8 (H, W) or (H, W, C). It may raise MisfitError.
    """

    id: str
    read: Callable[[], Content]


@dataclass(frozen=True)
class Rows:
    """Decoded uploads.

    pixels  uint8 (k, H, W, C) of the k uploads that could be decoded, in order
    sizes   int (k, 2): width and height of each as it came, once it was turned
    errors  the errors of the other uploads, by position
    """

    pixels: Uint8Array
    sizes: IntArray
    errors: dict[int, MisfitError]


@dataclass
class Opened:
    """An image file whose header has been read.

    cost  the peak of bytes that decoding takes; also a measure of its time, about 3 ns a byte
    size  width and height in the file; once it is decoded, as EXIF turns it
    """

    image: Image.Image
    cost: int
    size: tuple[int, int]


def read_rows(uploads: Sequence[Upload], spec: Spec, resize: Resize, limits: Limits) -> Rows:
    """Decode every upload that can be decoded, in order, in this thread."""
    pixels, sizes = np.empty((len(uploads), *spec.shape), dtype=np.uint8), np.empty((len(uploads), 2), dtype=np.int64)
    errors: dict[int, MisfitError] = {}
    for position, upload in enumerate(uploads):
        row = position - len(errors)
        try:
            pixels[row], sizes[row] = read_row(upload.read(), spec, resize, limits)
        except InvalidInput as error:
            errors[position] = error
    usable = len(uploads) - len(errors)
    return Rows(pixels[:usable], sizes[:usable], errors)


def to_row(content: Content, spec: Spec, resize: Resize, limits: Limits) -> Uint8Array:
    """Return one image as uint8 `spec.shape`. Raises UndecodableImage, TooLarge or ShapeMismatch."""
    return read_row(content, spec, resize, limits)[0]


def read_row(content: Content, spec: Spec, resize: Resize, limits: Limits) -> tuple[Uint8Array, tuple[int, int]]:
    """Return one image as uint8 `spec.shape`, and its width and height as it came.

    Raises UndecodableImage, TooLarge or ShapeMismatch.
    """
    if isinstance(content, np.ndarray):
        return from_pixels(content, spec, resize, limits), size_of(content)
    opened = open_image(content, spec, resize, limits)
    return decode(opened, spec, resize), opened.size


def from_pixels(content: Uint8Array, spec: Spec, resize: Resize, limits: Limits) -> Uint8Array:
    """Return pixels (H, W) or (H, W, C) of any size as uint8 `spec.shape`. Raises TooLarge or ShapeMismatch."""
    pixels = with_channels(content)
    if pixels.shape == spec.shape:
        return pixels
    limits.check_pixels((pixels.shape[1], pixels.shape[0]))
    return _conform(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), spec, resize)


def size_of(pixels: Uint8Array) -> tuple[int, int]:
    """Return the width and height of pixels (H, W) or (H, W, C)."""
    return pixels.shape[1], pixels.shape[0]


def with_channels(pixels: Uint8Array) -> Uint8Array:
    """Return pixels (H, W) or (H, W, C) as (H, W, C)."""
    return pixels if pixels.ndim == 3 else pixels[..., None]


def open_image(content: bytes | memoryview, spec: Spec, resize: Resize, limits: Limits) -> Opened:
    """Read an image file's header. Raises UndecodableImage, and TooLarge where `limits` are exceeded."""
    length = len(content)
    content, compressed_texts = png_chunks.drop_unused_texts(content)
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UndecodableImage(
            f"{length} bytes that begin with {bytes(content[:12])!r} cannot be read as an image; "
            f"expected {', '.join(FORMATS)}.",
            "Send the image file's own bytes. URLs are never fetched.",
        ) from error
    except Exception as error:
        raise _build_error(error) from error
    try:
        limits.check_pixels(image.size)
        if image.mode in ("I", "F"):
            raise UndecodableImage(
                f"The image has 32 bits a pixel (mode {image.mode}), whose range is not known; expected 8 or 16.",
                "Convert it to 8 bits a channel.",
            )
        size = image.size
        if resize == "fit":
            # Pillow decodes a large JPEG at a fraction of its size, but at least twice the size that the model takes.
            image.draft(None, (2 * max(spec.width, spec.height),) * 2)
        cost = _estimate_cost(image, size, content) + compressed_texts * MIB
        limits.check_cost(cost, size, length)
    except MisfitError:
        image.close()
        raise
    except Exception as error:
        image.close()
        raise _build_error(error) from error
    return Opened(image, cost, size)


def decode(opened: Opened, spec: Spec, resize: Resize) -> Uint8Array:
    """Return an opened image as uint8 `spec.shape`, and close it. Raises UndecodableImage or ShapeMismatch."""
    try:
        with opened.image as image:
            image.load()
            sent = image.size
            ImageOps.exif_transpose(image, in_place=True)
            if image.size != sent:
                opened.size = opened.size[::-1]
            return _conform(image, spec, resize)
    except MisfitError:
        raise
    except Exception as error:
        raise _build_error(error) from error


def _build_error(error: Exception) -> UndecodableImage:
    """Return the error for anything that Pillow raised: on damaged input its decoders raise nearly every type."""
    return UndecodableImage(
        f"The image cannot be decoded: {error or type(error).__name__}.",
        "It may be damaged or cut short: send it again.",
    )


def _estimate_cost(image: ImageFile.ImageFile, size: tuple[int, int], content: bytes | memoryview) -> int:
    """Return the bytes that decoding an opened image takes. `size` is its full size; `image` may be scaled down."""
    pixel_bytes = BYTES_PER_PIXEL.get(image.mode, MOST_BYTES_PER_PIXEL)
    if image.mode == "RGB" and "transparency" in image.info:
        pixel_bytes = MOST_BYTES_PER_PIXEL
    # EXIF may come after a PNG's pixels: Pillow would decode the image to find it.
    exif_is_readable = image.format != "PNG" or "exif" in image.info
    if exif_is_readable and image.getexif().get(ORIENTATION, 1) != 1:
        pixel_bytes += 4  # for the turned copy
    if image.format == "WEBP":
        pixel_bytes += WEBP_CANVAS_BYTES
    cost = image.width * image.height * pixel_bytes
    if image.format in ("JPEG", "MPO"):
        cost += _estimate_coefficients(image, size[0] * size[1], bytes(content))
    return cost


def _estimate_coefficients(image: ImageFile.ImageFile, pixels: int, content: bytes) -> int:
    """Return the bytes that a JPEG of `pixels` pixels takes before it is scaled down."""
    header_end = image.fp.tell() if image.fp is not None else 0
    bands = len(image.getbands())
    first_scan = content.rfind(START_OF_SCAN, 0, header_end)
    first_scan_bands = content[first_scan + 4] if 0 <= first_scan < len(content) - 4 else bands
    if "progressive" not in image.info and first_scan_bands >= bands:
        return pixels
    scans = 1 + content.count(START_OF_SCAN, header_end)
    return pixels * (1 + COEFFICIENT_BYTES * bands) + pixels * scans // SCANS_PER_BYTE


def _conform(image: Image.Image, spec: Spec, resize: Resize) -> Uint8Array:
    """Return a decoded image as uint8 `spec.shape`."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    final_mode = "RGB" if spec.channels == 3 else "L"
    # Grey is resized before it becomes colour: three equal channels would be resized alike.
    grey = image.mode in ("1", "L") and not image.has_transparency_data
    mode = "RGBA" if image.has_transparency_data else "L" if grey else final_mode
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
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == final_mode else image.convert(final_mode)
    return np.asarray(image).reshape(spec.shape)
