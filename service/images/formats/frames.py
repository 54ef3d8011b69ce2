"""The frames of an animation (GIF, WebP, PNG): each is drawn over those before it, so that they are read in order.

A thread keeps the animation that it read last. So all frames of one file take the time of one pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageFile

FORMATS = ("GIF", "WEBP", "PNG")

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
    if image is None or _kept.content is not content or image.tell() > number:
        image = Image.open(BytesIO(content), formats=FORMATS)
        _kept.content, _kept.image = content, image
    try:
        check_size(image.size)
        image.seek(number)
        check_size(image.size)
        frame = image.copy()
    except BaseException:
        forget()  # where it stands is not known
        raise
    frame.format = image.format
    return frame


def forget() -> None:
    """Free the animation that this thread keeps."""
    _kept.content = _kept.image = None
