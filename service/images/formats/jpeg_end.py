"""JPEGs without their end, as cameras, streams and carved files leave them: complete but for the last marker.

Pillow refuses them, while browsers show them. They also show one of which half is missing, which is no image here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

from PIL import Image

START, END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# Markers without a length; between them, in a scan, stand the pixels.
TEMPORARY, RESTARTS = 0x01, range(0xD0, 0xD8)
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
# Pixels as a JPEG may have them, of codes that differ. A decoder that lacks pixels takes these for them.
CODES = (b"\x00" * 64, b"\x55" * 64, b"\xd6\x2b\x94" * 21)
# Bytes of zeros in a row that pixels may end in. In pixels 255 is followed by one.
MOST_ZEROS = 2
COEFFICIENTS = 64  # of a block


def add_end(content: bytes | memoryview, size: tuple[int, int] | None) -> bytes | None:
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
    """Yield the marker and the data of each segment; pixels are passed over."""
    at = 2
    while 0 <= (at := content.find(b"\xff", at)) < len(content) - 3:
        marker = content[at + 1]
        if marker in (0, TEMPORARY, 0xFF) or marker in RESTARTS:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        data = content[at + 4 : at + 2 + length]
        yield marker, data
        at += 2 + max(length, 2)
