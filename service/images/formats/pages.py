"""The pages of a file: those of a TIFF, the frames of GIF, WebP, PNG and AVIF, and the images of a HEIC.

They are counted without decoding them. A page is known by its number, from 0. Of a TIFF it is known by the place of its
directory in the file: each directory names the next one, so that to look for the last one by its number takes long.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from service.errors import UndecodableImage
from service.images.formats import frames, heif, tiff

# TIFF's tag of what a page is, and the bits of it that say: a smaller copy, a mask. The tag of pages within a page.
SUBFILE_TYPE, REDUCED, MASK, SUB_PAGES = 254, 1, 4, 330
HEAD_BYTES = 64
# Tags of a TIFF without whose values the pixels are others: from the number of bits to the transfer function, and from
# the tiles on to the kind of samples. The bytes of a value by its type; those of text tell nothing of pixels.
PIXEL_TAGS = (range(258, 260), range(273, 285), range(317, 343))
VALUE_BYTES = {1: 1, 3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
# What reading beyond a damaged place raises.
DAMAGE = (struct.error, IndexError, OverflowError)
# The description that ImageJ writes, near the file's beginning.
IMAGEJ_IMAGES, STACK_WITHIN = re.compile(rb"ImageJ=[^\0]{0,500}?\nimages=(\d{1,9})\n"), 64 * 1024
GIF_EXTENSION, GIF_IMAGE, GIF_END = 0x21, 0x2C, 0x3B


def find_pages(content: bytes | memoryview, most: int) -> list[int]:
    """Return the pages of a file that are images of their own, at most `most` and one more."""
    if tiff.is_tiff(bytes(content[:4])):
        pages = _tiff_pages(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        pages = _gif_frames(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        pages = _webp_frames(content)
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        pages = _png_frames(content)
    elif content[4:8] == b"ftyp":
        pages = _heif_images(content)
    else:
        return []
    found: list[int] = []
    try:
        for page in pages:
            found.append(page)
            if len(found) > most:
                break
    except DAMAGE:  # in the rest
        pass
    return found


def has_stack_behind(content: bytes | memoryview) -> bool:
    """Return whether a TIFF of one page has more images behind its pixels, of which no directory tells: ImageJ's stack.

    Its description says how many.
    """
    match = IMAGEJ_IMAGES.search(bytes(content[:STACK_WITHIN])) if tiff.is_tiff(bytes(content[:4])) else None
    return match is not None and int(match[1]) > 1 and len(find_pages(content, 1)) == 1


def find_first_page(content: bytes | memoryview) -> int:
    """Return the page of a TIFF that is read where one is: not a smaller copy that comes before it. 0 is the first.

    Raises UndecodableImage where the file has nothing but a smaller copy, as raw files of cameras have beside the raw
    data.
    """
    own = find_pages(content, 0)
    if own:
        return own[0]
    with suppress(*DAMAGE):
        if any(page.has_sub_pages for page in _list_tiff_pages(content)):
            raise UndecodableImage(
                "The TIFF holds a preview, and the image itself as raw data of a camera (DNG, NEF, ARW, ...).",
                "Develop it, and send it as PNG, TIFF or JPEG.",
            )
    return 0


def begin_at(content: bytes | memoryview, page: int) -> bytes | memoryview:
    """Return a TIFF whose first page is `page`, which is the place of its directory."""
    layout = _find_layout(content)
    if page == 0 or struct.unpack_from(layout.offset, content, layout.first)[0] == page:
        return content
    place = struct.pack(layout.offset, page)
    return b"".join((content[: layout.first], place, memoryview(content)[layout.first + len(place) :]))


def check_values(content: bytes | memoryview) -> None:
    """Raise UndecodableImage where values that a TIFF's first directory names lie beyond the file's end.

    Libraries pass over them, and read the pixels as others.
    """
    layout = _find_layout(content)
    with suppress(*DAMAGE):
        (place,) = struct.unpack_from(layout.offset, content, layout.first)
        (count,) = struct.unpack_from(layout.number, content, place)
        start = place + struct.calcsize(layout.number)
        for entry in range(start, start + count * layout.entry_bytes, layout.entry_bytes):
            tag, kind, length, value = struct.unpack_from(layout.entry, content, entry)
            value_bytes = VALUE_BYTES.get(kind, 0) * length
            is_elsewhere = value_bytes > struct.calcsize(layout.offset)
            if is_elsewhere and value + value_bytes > len(content) and any(tag in tags for tags in PIXEL_TAGS):
                raise UndecodableImage(
                    f"The TIFF is cut short: its directory names {value_bytes} bytes at {value}, and the file has "
                    f"{len(content)}.",
                    "It was not written, or not downloaded, to its end: send it again.",
                )


class _Layout(NamedTuple):
    """How a TIFF, or a BigTIFF, is laid out: where it has the place of its first directory, and the formats of a place,
    of the number of entries and of an entry: tag, type, number of values, and their place.
    """

    first: int
    offset: str
    number: str
    entry: str

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(self.entry)


def _find_layout(content: bytes | memoryview) -> _Layout:
    order = "<" if bytes(content[:2]) == b"II" else ">"
    is_big = content[2 if order == "<" else 3] == 43
    return (
        _Layout(8, f"{order}Q", f"{order}Q", f"{order}HHQQ")
        if is_big
        else _Layout(4, f"{order}I", f"{order}H", f"{order}HHII")
    )


class _TiffPage(NamedTuple):
    """The place of a page's directory in a TIFF, whether it is a smaller copy or a mask, and has pages in it."""

    place: int
    is_copy: bool
    has_sub_pages: bool


def _tiff_pages(content: bytes | memoryview) -> Iterator[int]:
    return (page.place for page in _list_tiff_pages(content) if not page.is_copy)


def _list_tiff_pages(content: bytes | memoryview) -> Iterator[_TiffPage]:
    layout = _find_layout(content)
    order, entry_bytes = layout.offset[0], layout.entry_bytes
    (offset,) = struct.unpack_from(layout.offset, content, layout.first)
    seen: set[int] = set()
    entries_left = len(content) // entry_bytes  # directories that lie on one another would be read without end
    while offset and offset not in seen:
        seen.add(offset)
        (count,) = struct.unpack_from(layout.number, content, offset)
        entries = offset + struct.calcsize(layout.number)
        end = entries + count * entry_bytes
        (next_offset,) = struct.unpack_from(layout.offset, content, end)
        if (entries_left := entries_left - count) < 0:
            return
        kind, has_sub_pages = 0, False
        for entry in range(entries, end, entry_bytes):
            (tag,) = struct.unpack_from(order + "H", content, entry)
            if tag == SUBFILE_TYPE:
                (kind,) = struct.unpack_from(order + "I", content, entry + entry_bytes - struct.calcsize(layout.offset))
            has_sub_pages |= tag == SUB_PAGES
            if tag >= SUB_PAGES:
                break  # they are sorted
        yield _TiffPage(offset, bool(kind & (REDUCED | MASK)), has_sub_pages)
        offset = next_offset


def _gif_frames(content: bytes | memoryview) -> Iterator[int]:
    at, frame = frames.HEADER_BYTES + frames.palette_length(content[frames.PALETTE_FLAGS_AT]), 0
    while content[at] != GIF_END:
        if content[at] == GIF_IMAGE:
            yield frame
            frame += 1
            at += 10 + frames.palette_length(content[at + 9]) + 1
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


def _heif_images(content: bytes | memoryview) -> Iterator[int]:
    head = bytes(content[:HEAD_BYTES])
    with suppress(Exception):  # a damaged file has no pages: its error comes when it is decoded
        with Image.open(BytesIO(content), formats=("HEIF",) if heif.is_heic(head) else ("AVIF",)) as image:
            count = getattr(image, "n_frames", 1)
        yield from range(count)
