"""The ends of image files: missing, or zeros, as cameras, carved files, broken downloads and full disks leave them.

Pillow refuses a JPEG that lacks nothing but its end marker, while browsers show it. Where zeros stand in place of
pixels decoders take them for codes, and draw the rest of the picture from them without a word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import Image

from service.errors import UndecodableImage

# Of a JPEG.
START, END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# Markers without a length; between them, in a scan, stand the pixels.
TEMPORARY, RESTARTS = 0x01, range(0xD0, 0xD8)
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
# Pixels as a JPEG may have them, of codes that differ. A decoder that lacks pixels takes these for them.
CODES = (b"\x00" * 64, b"\x55" * 64, b"\xd6\x2b\x94" * 21)
# Bytes of zeros in a row that pixels may end in. In pixels 255 is followed by one.
MOST_ZEROS = 2
COEFFICIENTS = 64  # of a block
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
    if content[:2] == START:
        closed = content if stripped.endswith(END) else add_jpeg_end(content, size)
        if closed is None:
            raise _error("JPEG", zeros)
        return closed
    if content[:4] == b"RIFF" and zeros >= LEAST_ZEROS and _end_within(_webp_codes(content), len(stripped)):
        raise _error("WebP", zeros)
    if content[4:8] == b"ftyp" and zeros >= LEAST_PART * len(content) and _end_within(_boxes(content), len(stripped)):
        raise _error("image", zeros)
    return content


def add_jpeg_end(content: bytes | memoryview, size: tuple[int, int] | None) -> bytes | None:
    """Return a JPEG with its end, where nothing else is missing; else None, and of any other file.

    `size` is the least (width, height) at which it is decoded, None for its own. What follows complete pixels makes no
    difference to the image.
    """
    if content[:2] != START:
        return None
    pixels = _strip_padding(bytes(content))
    try:
        following = _find_next_restart(pixels)
        images = (_draw(pixels + codes + following + codes + END, size) for codes in CODES)
        is_complete = _has_all_scans(pixels) and len(set(images)) == 1
    except Exception:  # noqa: BLE001 - of a file that is damaged as well
        return None
    return pixels + END if is_complete else None


def _strip_padding(content: bytes) -> bytes:
    """Return a JPEG without many zeros behind its pixels, nor the half of an end."""
    stripped = content.rstrip(b"\0")
    zeros = len(content) - len(stripped)
    if 0 < zeros <= MOST_ZEROS:
        return content
    return stripped + b"\0" if zeros and stripped.endswith(b"\xff") else stripped.rstrip(b"\xff")


def _draw(content: bytes, size: tuple[int, int] | None) -> bytes:
    with Image.open(BytesIO(content), formats=("JPEG",)) as image:
        if size is not None:
            image.draft(None, size)
        return image.tobytes()


def _find_next_restart(content: bytes) -> bytes:
    """Return the marker that stands before the next pixels where those at the end of a JPEG are complete."""
    markers = RESTART.findall(content)
    return bytes((0xFF, RESTARTS[(markers[-1][0] - RESTARTS[0] + 1) % 8 if markers else 0]))


def _has_all_scans(content: bytes) -> bool:
    """Return whether each coefficient of each channel comes to its last bit: a progressive JPEG has them in scans."""
    missing: dict[int, set[int]] = {}
    for marker, data in _list_segments(content):
        if marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):  # a frame
            missing = {data[at]: set(range(COEFFICIENTS)) for at in range(6, len(data) - 2, 3)}
        elif marker == SCAN and data:
            channels = data[1 : 1 + 2 * data[0] : 2]
            first, last, bits = data[-3:]
            for channel in channels if bits & 15 == 0 else b"":
                missing.get(channel, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def _list_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the data of each segment up to the end; pixels are passed over."""
    at = 2
    while 0 <= (at := content.find(b"\xff", at)) < len(content) - 3 and content[at : at + 2] != END:
        marker = content[at + 1]
        if marker in (0, TEMPORARY, 0xFF) or marker in RESTARTS:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        data = content[at + 4 : at + 2 + length]
        yield marker, data
        at += 2 + max(length, 2)


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
