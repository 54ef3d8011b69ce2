"""The frames of an animation (GIF, WebP, PNG): each is drawn over those before it, so that they are read in order.

A thread keeps the animation that it read last. So all frames of one file take the time of one pass.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageFile

FORMATS = ("GIF", "WEBP", "PNG")
# A GIF's frame of one transparent pixel, with a palette of its own: nothing is drawn before it, so that all the rest
# is transparent as well.
CANVAS = b"!\xf9\4\1\0\0\0\0" + b",\0\0\0\0\1\0\1\0\x80" + b"\xff\0\0\0\0\xff" + b"\2\2\x44\1\0"
HEADER_BYTES, PALETTE_FLAGS_AT = 13, 10

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
        image = Image.open(BytesIO(content), formats=FORMATS)
        _kept.first = 0
        if has_uncovered(image):
            image = Image.open(BytesIO(_insert_canvas(bytes(content), image.size)), formats=FORMATS)
            _kept.first = 1
        _kept.content, _kept.image = content, image
    try:
        check_size(image.size)
        image.seek(_kept.first + number)
        check_size(image.size)
        frame = image.copy()
    except BaseException:
        forget()  # where it stands is not known
        raise
    frame.format = image.format
    return frame


def palette_length(flags: int) -> int:
    """Return the bytes of the palette that follows a GIF's header, or that of a frame, by the flags in it."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def has_uncovered(image: Image.Image) -> bool:
    """Return whether the first frame of a GIF leaves a part of the picture uncovered, and says of no colour that it is
    transparent.

    That part is transparent in browsers. Pillow fills it with the first colour of the palette.
    """
    box = getattr(image, "dispose_extent", None)
    return image.format == "GIF" and box not in (None, (0, 0, *image.size)) and not image.has_transparency_data


def _insert_canvas(content: bytes, size: tuple[int, int]) -> bytes:
    """Return a GIF of that (width, height) with one more frame before the others, of which nothing is to be seen."""
    start = HEADER_BYTES + palette_length(content[PALETTE_FLAGS_AT])
    return content[:6] + struct.pack("<HH", *size) + content[10:start] + CANVAS + content[start:]


def forget() -> None:
    """Free the animation that this thread keeps."""
    _kept.content = _kept.image = None
