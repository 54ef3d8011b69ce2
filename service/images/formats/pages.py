"""The pages of a file: those of a TIFF, and the frames of GIF, WebP and PNG, counted without decoding them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from service.images.formats import tiff

# TIFF's tag of what a page is, and the bits of it that say: a smaller copy, a mask.
SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4
GIF_EXTENSION, GIF_IMAGE, GIF_END = 0x21, 0x2C, 0x3B


def find_pages(content: bytes | memoryview, most: int) -> list[int]:
    """Return the numbers of the pages of a file that are images of their own, at most `most` and one more."""
    if tiff.is_tiff(bytes(content[:4])):
        pages = _tiff_pages(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        pages = _gif_frames(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        pages = _webp_frames(content)
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        pages = _png_frames(content)
    else:
        return []
    found: list[int] = []
    try:
        for page in pages:
            found.append(page)
            if len(found) > most:
                break
    except (struct.error, IndexError, OverflowError):  # a damaged rest
        pass
    return found


def _tiff_pages(content: bytes | memoryview) -> Iterator[int]:
    order = "<" if bytes(content[:2]) == b"II" else ">"
    is_big = content[2 if order == "<" else 3] == 43
    count_format, offset_format, entry_length = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    count_size = struct.calcsize(count_format)
    (offset,) = struct.unpack_from(order + offset_format, content, 8 if is_big else 4)
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        (count,) = struct.unpack_from(order + count_format, content, offset)
        entries = offset + count_size
        end = entries + count * entry_length
        (next_offset,) = struct.unpack_from(order + offset_format, content, end)
        kind = 0
        for entry in range(entries, end, entry_length):
            (tag,) = struct.unpack_from(order + "H", content, entry)
            if tag == SUBFILE_TYPE:
                (kind,) = struct.unpack_from(order + "I", content, entry + (12 if is_big else 8))
            if tag >= SUBFILE_TYPE:
                break  # they are sorted
        if not kind & (REDUCED | MASK):
            yield len(seen) - 1
        offset = next_offset


def _gif_frames(content: bytes | memoryview) -> Iterator[int]:
    def palette_length(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    at, frame = 13 + palette_length(content[10]), 0
    while content[at] != GIF_END:
        if content[at] == GIF_IMAGE:
            yield frame
            frame += 1
            at += 10 + palette_length(content[at + 9]) + 1
        elif content[at] == GIF_EXTENSION:
            at += 2
        else:
            return
        while content[at]:
            at += 1 + content[at]
        at += 1


def _webp_frames(content: bytes | memoryview) -> Iterator[int]:
    at, frame = 12, 0
    while at < len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        if kind == b"ANMF":
            yield frame
            frame += 1
        at += 8 + length + length % 2


def _png_frames(content: bytes | memoryview) -> Iterator[int]:
    at = 8
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"acTL":
            (count,) = struct.unpack_from(">I", content, at + 8)
            yield from range(count)
        if kind in (b"acTL", b"IDAT"):
            return
        at += 12 + length
