"""The frames of an animation (GIF, WebP, PNG): each is drawn over those before it, so that they are read in order.

A thread keeps the animation that it read last. So all frames of one file take the time of one pass.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice

from PIL import Image, ImageFile

FORMATS = ("GIF", "WEBP", "PNG")
# A GIF's frame of one transparent pixel, with a palette of its own: nothing is drawn before it, so that all the rest
# is transparent as well.
CANVAS = b"!\xf9\4\1\0\0\0\0" + b",\0\0\0\0\1\0\1\0\x80" + b"\xff\0\0\0\0\xff" + b"\2\2\x44\1\0"
HEADER_BYTES, PALETTE_FLAGS_AT = 13, 10
EXTENSION, FRAME, END = 0x21, 0x2C, 0x3B

_kept = threading.local()


def is_animation(content: bytes | memoryview) -> bool:
    """Return whether a file has one of these formats, by its first bytes."""
    head = bytes(content[:12])
    return head[:4] in (b"GIF8", b"\x89PNG") or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def read_frame(content: bytes | memoryview, number: int, check_size: Callable[[tuple[int, int]], None]) -> Image.Image:
    """Return a frame by its number. `check_size` raises where a width and height are too large to be drawn.

    Raises what Pillow raises.
    """
    image: ImageFile.ImageFile | None = getattr(_kept, "image", None)
    if image is None or _kept.content is not content or image.tell() > _kept.first + number:
        _kept.sizes = _list_sizes(content)
        check_size(_kept.sizes[0])
        image = Image.open(BytesIO(content), formats=FORMATS)
        _kept.first = 0
        if has_uncovered(image):
            image = Image.open(BytesIO(_insert_canvas(bytes(content), image.size)), formats=FORMATS)
            _kept.first = 1
        _kept.content, _kept.image = content, image
    try:
        check_size(image.size)
        for size in _kept.sizes[max(0, image.tell() - _kept.first) : number + 1]:
            check_size(size)
        image.seek(_kept.first + number)
        check_size(image.size)
        frame = image.copy()
    except BaseException:
        forget()  # where it stands is not known
        raise
    frame.format = image.format
    return frame


def check_first(content: bytes | memoryview, check_size: Callable[[tuple[int, int]], None]) -> None:
    """Call `check_size` with what the first frame of a GIF needs: Pillow may take that room when it opens the file."""
    for _, _, right, bottom in islice(list_boxes(content), 1):
        check_size((right, bottom))


def list_boxes(content: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yield the box of each frame of a GIF: left, top, right, bottom. Raises IndexError or struct.error at damage."""
    at = HEADER_BYTES + _palette_length(content[PALETTE_FLAGS_AT])
    while content[at] != END:
        if content[at] == FRAME:
            left, top, width, height, flags = struct.unpack_from("<4HB", content, at + 1)
            yield left, top, left + width, top + height
            at += 10 + _palette_length(flags) + 1
        elif content[at] == EXTENSION:
            at += 2
        else:
            return
        while content[at]:
            at += 1 + content[at]
        at += 1


def _list_sizes(content: bytes | memoryview) -> list[tuple[int, int]]:
    """Return the width and height that each frame of a GIF needs; (0, 0) alone of other files, which have one size."""
    sizes = [(0, 0)]
    if content[:4] == b"GIF8":
        with suppress(IndexError, struct.error):
            sizes = []
            sizes.extend((right, bottom) for _, _, right, bottom in list_boxes(content))
    return sizes or [(0, 0)]


def _palette_length(flags: int) -> int:
    """Return the bytes of the palette that follows a GIF's header, or that of a frame, by the flags in it."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def has_uncovered(image: Image.Image) -> bool:
    """Return whether the first frame of a GIF leaves a part of the picture uncovered, and says of no colour that it is
    transparent.

    That part is transparent in browsers. Pillow fills it with the first colour of the palette.
    """
    box = getattr(image, "dispose_extent", None)
    return image.format == "GIF" and box not in (None, (0, 0, *image.size)) and not image.has_transparency_data


def clear_uncovered(image: Image.Image) -> Image.Image:
    """Return the first frame of a GIF, which is decoded, with what it leaves uncovered transparent; any other image as
    it is.
    """
    if not has_uncovered(image):
        return image
    covered = Image.new("L", image.size, 0)
    covered.paste(255, image.dispose_extent)  # type: ignore[attr-defined]  # of a GIF
    frame = image.convert("RGBA")
    frame.putalpha(covered)
    frame.info, frame.format = image.info, image.format
    return frame


def _insert_canvas(content: bytes, size: tuple[int, int]) -> bytes:
    """Return a GIF of that (width, height) with one more frame before the others, of which nothing is to be seen."""
    start = HEADER_BYTES + _palette_length(content[PALETTE_FLAGS_AT])
    return content[:6] + struct.pack("<HH", *size) + content[10:start] + CANVAS + content[start:]


def forget() -> None:
    """Free the animation that this thread keeps."""
    _kept.content = _kept.image = None
