"""BMP files whose header names the bits of each channel (masks) so that Pillow refuses them, or leaves alpha out."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np

from service.errors import UndecodableImage
from service.images import sample_range
from service.images.formats.deep import DeepImage, decoded_bytes
from service.images.sample_range import Samples
from service.images.spec import Uint8Array

HEADER_BYTES, LEAST_INFO = 14, 40
MASKS_AT, ALPHA_AT = HEADER_BYTES + LEAST_INFO, HEADER_BYTES + LEAST_INFO + 12
BITFIELDS, ALPHA_BITFIELDS = 3, 6
WORDS = {16: "<u2", 32: "<u4"}
# Masks of red, green, blue and alpha that Pillow reads right.
OF_PILLOW = {
    (16, (0xF800, 0x7E0, 0x1F, 0)),
    (16, (0x7C00, 0x3E0, 0x1F, 0)),
    (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    (32, (0xFF000000, 0xFF0000, 0xFF00, 0)),
    (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    (32, (0xFF000000, 0xFF00, 0xFF, 0)),
    (32, (0xFF000000, 0xFF00, 0xFF, 0xFF0000)),
    (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    (32, (0, 0, 0, 0)),
}


def open_masked(content: bytes | memoryview) -> DeepImage | None:
    """Return a BMP as a deep image of 8 bits; None where Pillow reads it, and of any other file."""
    if content[:2] != b"BM" or len(content) < ALPHA_AT + 4:
        return None
    start, info, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", content, 10)
    if info < LEAST_INFO or bits not in WORDS or compression not in (BITFIELDS, ALPHA_BITFIELDS):
        return None
    has_alpha = info >= LEAST_INFO + 16 or compression == ALPHA_BITFIELDS
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", content, MASKS_AT)
    masks = masks if has_alpha else (*masks, 0)
    if (bits, masks) in OF_PILLOW or 0 in masks[:3] or width <= 0 or height == 0:
        return None
    used = masks if masks[3] else masks[:3]
    mode = "RGBA" if masks[3] else "RGB"
    return DeepImage(
        (width, abs(height)),
        mode,
        np.dtype(np.uint8),
        sample_range.BYTES,
        sample_range.BYTES,
        partial(_read, content, start, width, height, bits, used),
        decoded_bytes(bits // 8 + 8, mode),  # of a word, and of it as a float
    )


def _read(
    content: bytes | memoryview, start: int, width: int, height: int, bits: int, masks: tuple[int, ...]
) -> Samples:
    """Return the samples (H, W, C). Rows begin at multiples of four bytes, and the lowest row comes first."""
    stride, rows = (width * bits // 8 + 3) // 4 * 4, abs(height)
    if len(content) < start + stride * rows:
        raise UndecodableImage(
            f"The BMP needs {start + stride * rows} bytes, and has {len(content)}.",
            "It may be damaged or cut short: send it again.",
        )
    lines = np.frombuffer(content, np.uint8, stride * rows, start).reshape(rows, stride)[:, : width * bits // 8]
    words = np.ascontiguousarray(lines if height < 0 else lines[::-1]).view(WORDS[bits])
    return np.stack([_take_bits(words, mask) for mask in masks], axis=-1)


def _take_bits(words: Samples, mask: int) -> Uint8Array:
    """Return the levels of the channel that has the bits of `mask`."""
    shift = (mask & -mask).bit_length() - 1
    values = (words & words.dtype.type(mask)) >> words.dtype.type(shift)
    levels: Uint8Array = np.rint(values * (255 / (mask >> shift))).astype(np.uint8)
    return levels
