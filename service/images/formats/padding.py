"""Files that end in zeros in place of pixels, as broken downloads and full disks leave them, at their full length.

Decoders take the zeros for codes, and draw the rest of the picture from them without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from service.errors import UndecodableImage
from service.images.formats import jpeg_end

# Codes never have so many zeros at their end. The data of AVIF and HEIC may end in EXIF, which has more: there zeros
# count that are a larger part of the file than EXIF is.
LEAST_ZEROS, LEAST_PART = 64, 1 / 16
WEBP_CODES = (b"VP8 ", b"VP8L", b"ANMF")
WHOLE_FILE = 0  # in place of a box's length


def close(content: bytes | memoryview, size: tuple[int, int] | None) -> bytes | memoryview:
    """Return a file, with its end marker in place of zeros behind complete pixels.

    `size` is the least (width, height) at which a JPEG is decoded, None for its own. Raises UndecodableImage where
    zeros stand in place of pixels.
    """
    if content[-1:] != b"\0":
        return content
    stripped = bytes(content).rstrip(b"\0")
    zeros = len(content) - len(stripped)
    if content[:2] == jpeg_end.START:
        closed = content if stripped.endswith(jpeg_end.END) else jpeg_end.add_end(content, size)
        if closed is None:
            raise _error("JPEG", zeros)
        return closed
    if content[:4] == b"RIFF" and zeros >= LEAST_ZEROS and _end_within(_webp_codes(content), len(stripped)):
        raise _error("WebP", zeros)
    if content[4:8] == b"ftyp" and zeros >= LEAST_PART * len(content) and _end_within(_boxes(content), len(stripped)):
        raise _error("image", zeros)
    return content


def _error(what: str, zeros: int) -> UndecodableImage:
    return UndecodableImage(
        f"The {what} ends in {zeros} zeros in place of pixels.",
        "It was not written, or not downloaded, to its end: send it again.",
    )


def _end_within(parts: Iterator[tuple[int, int]], end: int) -> bool:
    """Return whether what is no zero ends within one of the parts (start, end) of a file, well before the part does."""
    return any(start <= end <= stop - LEAST_ZEROS for start, stop in parts)


def _webp_codes(content: bytes | memoryview) -> Iterator[tuple[int, int]]:
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        if kind in WEBP_CODES:
            yield at + 8, at + 8 + length
        at += 8 + length + length % 2


def _boxes(content: bytes | memoryview) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 16 <= len(content):
        length, kind, long_length = struct.unpack_from(">I4sQ", content, at)
        length = long_length if length == 1 else length if length != WHOLE_FILE else len(content) - at
        if kind == b"mdat":
            yield at + 8, at + length
        at += max(length, 8)
