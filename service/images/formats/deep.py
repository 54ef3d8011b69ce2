"""Images whose samples are deep (`service.images.sample_range`), or whose files Pillow does not read.

A DeepImage is a header and a function that reads the samples. Once their range is known, they become an image of
Pillow with 8 bits a channel, which goes the way of all other images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from service.images import sample_range
from service.images.formats import colour
from service.images.formats.colour import Cicp, Conversion
from service.images.sample_range import Extent, Samples
from service.images.spec import Uint8Array

ORIENTATION = 0x0112  # EXIF
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# PNG's kinds of colour, by the number in its header.
PNG_MODES = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}
# Bytes that converting and resizing takes for each pixel of an array of bytes.
ARRAY_BYTES_PER_PIXEL = 8
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class DeepImage:
    """An image of deep samples whose header has been read.

    size         (width, height)
    mode         Pillow's mode of the image at 8 bits: L, LA, RGB, RGBA, RGBa (colours multiplied by alpha) or CMYK
    dtype        of the samples
    full         all values that the samples may have
    stated       the range that the file states; None where it states none
    read         returns the samples (height, width, channels)
    pixel_bytes  the peak of bytes that decoding takes for each pixel
    segment_bytes  of the largest part of the file that is decoded at a time
    is_inverted  whether the lowest value is white
    info         as of an image of Pillow: the colour profile and the like
    orientation  as EXIF has it
    """

    size: tuple[int, int]
    mode: str
    dtype: np.dtype[Any]
    full: Extent
    stated: Extent | None
    read: Callable[[], Samples]
    pixel_bytes: int
    segment_bytes: int = 0
    is_inverted: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    orientation: int = 1

    @property
    def cost(self) -> int:
        """Return the peak of bytes that decoding takes."""
        return self.size[0] * self.size[1] * self.pixel_bytes + self.segment_bytes

    @property
    def has_alpha(self) -> bool:
        return self.mode[-1] in "Aa"

    def measure(self) -> Extent:
        """Return the extent of the colours. Raises what `read` and `sample_range.measure` raise."""
        samples = self.read()
        return sample_range.measure(samples[..., :-1] if self.has_alpha else samples)

    def find_conversion(self, cicp: Cicp | None) -> Conversion | None:
        """Return what brings the samples to sRGB; None where they are, or where 8 bits are enough for that."""
        if self.mode in PNG_MODES.values() and self.dtype.itemsize > 1:
            with suppress(ValueError):  # it is noted when 8 bits are converted
                conversion = colour.find_conversion(self.info, self.mode, cicp)
                return conversion if conversion and colour.is_steep(conversion) else None
        return None

    def to_pillow(self, extent: Extent, conversion: Conversion | None) -> tuple[Image.Image, Extent, bool]:
        """Return the image at 8 bits a channel, the extent of its colours, and whether some of these are no numbers.

        With a conversion it is in sRGB.
        """
        levels, own, has_missing = self._read_levels(extent, conversion)
        image = Image.frombuffer(self.mode, self.size, levels, "raw", self.mode, 0, 1)
        if self.mode == "RGBa":
            image = image.convert("RGBA")
        if conversion is None:
            image.info.update(self.info)
        if self.orientation != 1:
            image.getexif()[ORIENTATION] = self.orientation
        return image, own, has_missing

    def _read_levels(self, extent: Extent, conversion: Conversion | None) -> tuple[Uint8Array, Extent, bool]:
        """Return the grey levels (H, W, C), the extent of the colours, and whether some of these are no numbers."""
        samples = self.read()
        if self.dtype == np.uint8 and extent == sample_range.BYTES and not self.is_inverted:
            return np.ascontiguousarray(samples), extent, False
        levels = np.empty(samples.shape, dtype=np.uint8)
        colours = samples.shape[2] - self.has_alpha
        alpha = self._find_alpha_range(samples[..., colours:], extent) if self.has_alpha else extent
        for part in sample_range.parts(samples):
            levels[part][..., :colours] = self._to_levels(samples[part][..., :colours], extent, conversion)
            if self.has_alpha:
                levels[part][..., colours:] = sample_range.to_bytes(samples[part][..., colours:], alpha)
        own = sample_range.measure(samples[..., :colours])
        return levels, own, sample_range.has_missing(samples[..., :colours])

    def _to_levels(self, samples: Samples, extent: Extent, conversion: Conversion | None) -> Uint8Array:
        """Return the levels of colours (H, W, C)."""
        if conversion is None:
            levels = sample_range.to_bytes(samples, extent)
            return 255 - levels if self.is_inverted else levels
        words = sample_range.to_words(samples, extent)
        return conversion.apply_deep(65535 - words if self.is_inverted else words)

    def _find_alpha_range(self, alpha: Samples, extent: Extent) -> Extent:
        """Return the range of alpha (H, W, 1): that of the colours where it does not go beyond."""
        highest = float(alpha.max(initial=0))
        if highest <= 1 and self.dtype.kind == "f":
            return Extent(0.0, 1.0)
        return Extent(0, extent.high if highest <= extent.high else self.full.high)


def of_array(pixels: Samples) -> DeepImage:
    """Return an array (H, W) or (H, W, C), C from 1 to 4, of any real type as a deep image."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    full = sample_range.full_range(pixels.dtype)
    is_stated = pixels.dtype.kind == "b" or pixels.dtype == np.uint8
    height, width, channels = pixels.shape
    return DeepImage(
        (width, height),
        MODES[channels],
        pixels.dtype,
        full,
        full if is_stated else None,
        lambda: pixels,
        ARRAY_BYTES_PER_PIXEL + channels * (pixels.dtype.itemsize - 1),
    )


def decoded_bytes(sample_bytes: int, mode: str) -> int:
    """Return the peak of bytes for each pixel: its samples and grey levels, then these as an image, and converted."""
    return max(sample_bytes, 8 if mode[-1] in "LBK" else 12) + len(mode)


def is_deep_png(head: bytes) -> bool:
    """Return whether a file that begins so is a PNG of 16 bits: Pillow drops the lower byte of its colours."""
    return len(head) > 25 and head[24] == 16 and head[:8] == PNG_SIGNATURE


def of_png(content: bytes, image: Image.Image) -> DeepImage:
    """Return a 16-bit PNG, whose header Pillow has read as `image`, as a deep image."""
    has_key = "transparency" in image.info
    mode = PNG_MODES[content[25]] + ("A" if has_key else "")
    info = {str(name): value for name, value in image.info.items() if name != "transparency"}
    dtype = np.dtype(np.uint16)

    def read() -> Samples:
        import imagecodecs  # here, because few images need it

        samples = imagecodecs.png_decode(content)
        return samples.reshape(image.height, image.width, len(mode))

    orientation = 1
    with suppress(Exception):  # an image whose EXIF is damaged stays as it is
        orientation = int(image.getexif().get(ORIENTATION, 1)) if "exif" in info else 1
    return DeepImage(
        image.size,
        mode,
        dtype,
        sample_range.full_range(dtype),
        None,
        read,
        decoded_bytes(len(mode) * dtype.itemsize, mode),
        info=info,
        orientation=orientation,
    )
