"""Colour profiles in files of which Pillow leaves them out: BMP of version 5, and GIF with the extension of the ICC."""

from __future__ import annotations

import struct

# A BMP's header: where it begins, its length in version 5, and the kind of colour space of an embedded profile.
HEADER_AT, HEADER_LENGTH, EMBEDDED = 14, 124, b"DEBM"
# Places in the file of the kind of colour space, and of the place and the length of the profile.
SPACE_AT, PROFILE_AT = HEADER_AT + 56, HEADER_AT + 112
# A GIF's application extension, its length and its name; the profile follows in blocks of at most 255 bytes.
GIF_EXTENSION, GIF_WITHIN = b"!\xff\x0bICCRGBG1012", 64 * 1024


def find_profile(content: bytes | memoryview) -> bytes | None:
    """Return the ICC profile of a BMP or a GIF; None where there is none."""
    if content[:2] == b"BM":
        return _find_in_bmp(content)
    if content[:4] == b"GIF8":
        return _find_in_gif(content)
    return None


def _find_in_bmp(content: bytes | memoryview) -> bytes | None:
    head = bytes(content[: HEADER_AT + HEADER_LENGTH])
    if len(head) < HEADER_AT + HEADER_LENGTH or head[SPACE_AT : SPACE_AT + 4] != EMBEDDED:
        return None
    start, length = struct.unpack_from("<II", head, PROFILE_AT)
    return bytes(content[HEADER_AT + start : HEADER_AT + start + length])


def _find_in_gif(content: bytes | memoryview) -> bytes | None:
    at = bytes(content[:GIF_WITHIN]).find(GIF_EXTENSION)
    if at < 0:
        return None
    at += len(GIF_EXTENSION)
    blocks = []
    while at < len(content) and content[at]:
        blocks.append(bytes(content[at + 1 : at + 1 + content[at]]))
        at += 1 + content[at]
    return b"".join(blocks)
