"""PNG's compressed texts and profiles, of which Pillow unpacks every one before it shows the header.

A megabyte of text takes a kilobyte, so that a file of them takes seconds. What an image needs of them is little: the
colour profile, and the orientation in the texts that hold EXIF or XMP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
KEPT_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")
LONGEST_KEYWORD = 79


def without_many_texts(content: bytes | memoryview) -> tuple[bytes | memoryview, int]:
    """Return a file with only the first profile and the first of each text that is used, and how many those are.

    Every other file, and one whose chunks cannot be followed to its end, comes back as it is.
    """
    if content[: len(SIGNATURE)] != SIGNATURE:
        return content, 0
    whole = bytes(content)
    if not any(kind in whole for kind in COMPRESSED):
        return content, 0
    kept: list[bytes | memoryview] = [SIGNATURE]
    seen: set[bytes] = set()
    for kind, keyword, chunk in _chunks(whole):
        if kind in COMPRESSED:
            name = kind if kind == b"iCCP" else keyword
            if name in seen or (kind != b"iCCP" and keyword not in KEPT_KEYWORDS):
                continue
            seen.add(name)
        kept.append(chunk)
    return b"".join(kept), len(seen)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, memoryview]]:
    """Yield each chunk's type, what its data begin with up to a NUL, and the whole chunk; the rest comes as one."""
    view, at = memoryview(content), len(SIGNATURE)
    while at < len(content):
        if len(content) - at < 12:
            yield b"", b"", view[at:]
            return
        length, kind = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + min(length, LONGEST_KEYWORD + 1)]
        yield kind, data.partition(b"\0")[0], view[at : at + 12 + length]
        at += 12 + length
