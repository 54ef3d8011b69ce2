"""Estimates of the memory that decoding an image takes, from its header, before any pixel is decoded."""

from __future__ import annotations

import struct
from contextlib import suppress

from PIL import Image, ImageFile

ORIENTATION = 0x0112  # EXIF
# Where Pillow keeps EXIF of PNG and JPEG, and XMP, which may say the same.
EXIF_KEYS = frozenset({"exif", "Raw profile type exif", "Raw profile type APP1", "xmp", "XML:com.adobe.xmp"})
START_OF_SCAN = b"\xff\xda"  # JPEG

# The peak of bytes that Pillow holds for each pixel, by mode, conversion and resizing included (measured).
BYTES_PER_PIXEL = {"1": 2, "L": 2, "P": 9, "RGB": 4, "RGBA": 8}
MOST_BYTES_PER_PIXEL = 12  # of other modes, and of RGB with a transparent colour
# Further bytes for each pixel: libwebp draws on two canvases of its own; libavif and libheif hold a frame with each
# colour in a plane, and one with all of them.
CANVAS_BYTES = {"WEBP": 12, "AVIF": 6, "HEIF": 6}
# Of a GIF's frame that is drawn on those before it: the canvas, and the frame by itself.
FRAME_BYTES = 6
# A JPEG of several scans keeps two bytes for each coefficient. Every scan passes through all of them, which takes as
# long as writing a quarter of a byte for each pixel.
COEFFICIENT_BYTES, SCANS_PER_BYTE = 2, 4
# The least bytes for each pixel, and the lengths of a BMP's header that has 32 bits for each side.
LEAST_BYTES_PER_PIXEL = min(BYTES_PER_PIXEL.values())
BMP_HEADERS = frozenset({40, 52, 56, 64, 108, 124})


def estimate(image: Image.Image, size: tuple[int, int], content: bytes | memoryview) -> int:
    """Return the bytes that decoding an opened image takes. `size` is its full size; `image` may be scaled down."""
    pixel_bytes = BYTES_PER_PIXEL.get(image.mode, MOST_BYTES_PER_PIXEL)
    if image.mode == "RGB" and "transparency" in image.info:
        pixel_bytes = MOST_BYTES_PER_PIXEL
    # EXIF may come after a PNG's pixels: Pillow would decode the image to find it.
    exif_is_readable = image.format != "PNG" or "exif" in image.info
    if exif_is_readable and may_be_turned(image):
        with suppress(Exception):  # damaged EXIF counts for nothing, here and when the image is turned
            pixel_bytes += 4 if image.getexif().get(ORIENTATION, 1) != 1 else 0  # for the turned copy
    pixel_bytes += CANVAS_BYTES.get(image.format or "", 0)
    pixel_bytes += FRAME_BYTES if image.format == "GIF" and image.mode in ("RGB", "RGBA") else 0
    cost = image.width * image.height * pixel_bytes
    if isinstance(image, ImageFile.ImageFile) and image.format in ("JPEG", "MPO"):
        cost += _estimate_coefficients(image, size[0] * size[1], bytes(content))
    return cost


def estimate_least(content: bytes | memoryview) -> int:
    """Return the least bytes that decoding an image file takes, by its first bytes alone; 0 where these do not tell.

    It takes a microsecond and no library, so that a process which must not fail may call it.
    """
    width, height = _read_size(bytes(content[:30]))
    return width * height * LEAST_BYTES_PER_PIXEL


def _read_size(head: bytes) -> tuple[int, int]:
    """Return the width and height in the first 30 bytes of a PNG, GIF, WebP or BMP; (0, 0) of any other file."""
    if len(head) < 30:
        return 0, 0
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return struct.unpack_from(">II", head, 16)
    if head[:4] == b"GIF8":
        return struct.unpack_from("<HH", head, 6)
    if head[:2] == b"BM" and head[14] in BMP_HEADERS:
        width, height = struct.unpack_from("<ii", head, 18)
        return abs(width), abs(height)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def may_be_turned(image: Image.Image) -> bool:
    """Return whether an image may say how it is to be turned. To look for it takes long where there is nothing."""
    return image.format not in ("PNG", "JPEG") or not EXIF_KEYS.isdisjoint(image.info)


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
