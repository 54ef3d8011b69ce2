"""Drops a PNG's compressed texts and profiles that nothing needs: Pillow unpacks all of them to read the header.

A kilobyte of text may unpack to a megabyte, so that a file full of texts takes seconds. An image needs only its colour
profile, and the orientation in the texts that hold EXIF or XMP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
USED_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")
LONGEST_KEYWORD = 79


def drop_unused_texts(content: bytes | memoryview) -> tuple[bytes | memoryview, int]:
    """Return a PNG file with only the first profile and the first of each text that is used, and their number.

    Any other file is returned as it is, and so is the rest of a PNG from the first damaged chunk on.
    """
    if content[: len(SIGNATURE)] != SIGNATURE:
        return content, 0
    whole = bytes(content)
    if not any(kind in whole for kind in COMPRESSED):
        return content, 0
    pieces: list[bytes | memoryview] = [SIGNATURE]
    names: set[bytes] = set()
    for kind, keyword, chunk in _chunks(whole):
        if kind in COMPRESSED:
            name = kind if kind == b"iCCP" else keyword
            if name in names or (kind != b"iCCP" and keyword not in USED_KEYWORDS):
                continue
            names.add(name)
        pieces.append(chunk)
    return b"".join(pieces), len(names)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, memoryview]]:
    """Yield each chunk's type, the start of its data up to a NUL, and the whole chunk. A damaged rest comes as one."""
    view, offset = memoryview(content), len(SIGNATURE)
    while offset < len(content):
        if len(content) - offset < 12:
            yield b"", b"", view[offset:]
            return
        length, kind = struct.unpack_from(">I4s", content, offset)
        data = content[offset + 8 : offset + 8 + min(length, LONGEST_KEYWORD + 1)]
        yield kind, data.partition(b"\0")[0], view[offset : offset + 12 + length]
        offset += 12 + length
