"""The directories of a TIFF, which say where its pages are, and what of each page must be there to read it right.

Libraries pass over what is missing, and read the pixels as others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from service.errors import UndecodableImage

# Tags: what a page is, and the bits of it that say: a smaller copy, a mask. The tag of pages within a page.
SUBFILE_TYPE, REDUCED, MASK, SUB_PAGES = 254, 1, 4, 330
# Tags of one value each, and those that have one for each strip or tile: where it begins.
WIDTH, HEIGHT, COMPRESSION, SAMPLES, STRIP_ROWS, PLANAR = 256, 257, 259, 277, 278, 284
TILE_WIDTH, TILE_HEIGHT = 322, 323
STRIPS, TILES = 273, 324
SEPARATE = 2  # planes
OLD_JPEG = 6  # a compression: one JPEG for all strips
# Tags without whose values the pixels are others: from the number of bits to the transfer function, and from the tiles
# on to the kind of samples. The bytes of a value by its type; those of text tell nothing of pixels.
PIXEL_TAGS = (range(258, 260), range(273, 285), range(317, 343))
VALUE_BYTES = {1: 1, 3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
SHORT = 3  # a type
# What reading beyond a damaged place raises.
DAMAGE = (struct.error, IndexError, OverflowError)
DAMAGE_HINT = "It was not written, or not downloaded, to its end: send it again."


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


class TiffPage(NamedTuple):
    """The place of a page's directory in a TIFF, whether it is a smaller copy or a mask, and has pages in it."""

    place: int
    is_copy: bool
    has_sub_pages: bool


def begin_at(content: bytes | memoryview, page: int) -> bytes | memoryview:
    """Return a TIFF whose first page is `page`, which is the place of its directory."""
    layout = _find_layout(content)
    if page == 0 or struct.unpack_from(layout.offset, content, layout.first)[0] == page:
        return content
    place = struct.pack(layout.offset, page)
    return b"".join((content[: layout.first], place, memoryview(content)[layout.first + len(place) :]))


def check_first(content: bytes | memoryview) -> None:
    """Raise UndecodableImage where a TIFF's first directory names values beyond the end, or too few strips or tiles."""
    layout = _find_layout(content)
    values, counts = {}, {}
    with suppress(*DAMAGE):
        for tag, kind, count, place, value in _list_entries(content, layout):
            value_bytes = VALUE_BYTES.get(kind, 0) * count
            is_elsewhere = value_bytes > struct.calcsize(layout.offset)
            if is_elsewhere and place + value_bytes > len(content) and any(tag in tags for tags in PIXEL_TAGS):
                raise UndecodableImage(
                    f"The TIFF is cut short: its directory names {value_bytes} bytes at {place}, and the file has "
                    f"{len(content)}.",
                    DAMAGE_HINT,
                )
            values[tag], counts[tag] = value, count
    expected = _count_parts(values)
    named = counts.get(TILES, counts.get(STRIPS, expected))
    if named < expected and values.get(COMPRESSION) != OLD_JPEG:
        raise UndecodableImage(f"The TIFF has {named} of the {expected} strips or tiles of its pixels.", DAMAGE_HINT)


def _list_entries(content: bytes | memoryview, layout: _Layout) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the entries of a TIFF's first directory: tag, type, number of values, their place, and the one value that
    may be in its stead.
    """
    (start,) = struct.unpack_from(layout.offset, content, layout.first)
    (number,) = struct.unpack_from(layout.number, content, start)
    start += struct.calcsize(layout.number)
    value_at = layout.entry_bytes - struct.calcsize(layout.offset)
    for entry in range(start, start + number * layout.entry_bytes, layout.entry_bytes):
        tag, kind, count, place = struct.unpack_from(layout.entry, content, entry)
        value = struct.unpack_from(layout.entry[0] + "H", content, entry + value_at)[0] if kind == SHORT else place
        yield tag, kind, count, place, value


def _count_parts(values: dict[int, int]) -> int:
    """Return how many strips or tiles a page has, by the values of its tags; 0 where these do not tell."""
    width, height = values.get(WIDTH, 0), values.get(HEIGHT, 0)
    if TILE_WIDTH in values and TILE_HEIGHT in values:
        part_width, part_height = values[TILE_WIDTH], values[TILE_HEIGHT]
    else:
        part_width, part_height = width, min(values.get(STRIP_ROWS, height), height)
    if part_width <= 0 or part_height <= 0:
        return 0
    planes = values.get(SAMPLES, 1) if values.get(PLANAR) == SEPARATE else 1
    return -(-width // part_width) * -(-height // part_height) * planes


def list_pages(content: bytes | memoryview) -> Iterator[TiffPage]:
    """Yield the pages of a TIFF. Raises one of DAMAGE where a directory is damaged."""
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
        yield TiffPage(offset, bool(kind & (REDUCED | MASK)), has_sub_pages)
        offset = next_offset


def _find_layout(content: bytes | memoryview) -> _Layout:
    order = "<" if bytes(content[:2]) == b"II" else ">"
    if content[2 if order == "<" else 3] == 43:
        return _Layout(8, f"{order}Q", f"{order}Q", f"{order}HHQQ")
    return _Layout(4, f"{order}I", f"{order}H", f"{order}HHII")
