"""HEIC, which Pillow reads once the package pi-heif is registered, and what Pillow does not tell of AVIF."""

from __future__ import annotations

import struct
from functools import cache

from service.errors import UndecodableImage

# Brands of HEIF files whose pictures are HEVC, and of those that may hold pictures of any codec.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
ANY_BRANDS = (b"mif1", b"msf1", b"mif2")
# The type of the box of colours, and of those that are named by numbers. Boxes come before the pixels.
COLOUR_NUMBERS, METADATA_BYTES = b"colrnclx", 64 * 1024


def is_heic(head: bytes) -> bool:
    """Return whether a file that begins so holds pictures in HEVC, which pi-heif reads.

    Raises UndecodableImage where it does and the library is missing.
    """
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]
    is_heic = brands[:4] in HEIC_BRANDS or (brands[:4] in ANY_BRANDS and b"avif" not in brands)
    if is_heic and not _register_heif():
        raise UndecodableImage(
            "The image is HEIC, which this installation does not read.",
            "Install pi-heif where the service runs, or save the image as JPEG.",
        )
    return is_heic


def find_cicp(content: bytes | memoryview) -> tuple[int, int] | None:
    """Return the numbers of the primaries and of the transfer function in an AVIF's box `colr`; None without.

    Pillow hands on the pixels as they are, of which these numbers tell the colours.
    """
    head = bytes(content[:METADATA_BYTES])
    start = head.find(COLOUR_NUMBERS)
    if start < 0 or len(head) < (end := start + len(COLOUR_NUMBERS) + 4):
        return None
    primaries, transfer = struct.unpack(">HH", head[end - 4 : end])
    return primaries, transfer


@cache
def _register_heif() -> bool:
    """Teach Pillow to read HEIC; return whether the library for it is there."""
    try:
        import pi_heif  # here, because few images need it
    except ImportError:
        return False
    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return True
