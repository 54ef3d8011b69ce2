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

from PIL import Image

from service.errors import UndecodableImage
from service.images.formats import frames, heif, tiff, tiff_directory
from service.images.formats.tiff_directory import DAMAGE

HEAD_BYTES = 64
# The description that ImageJ writes, near the file's beginning.
IMAGEJ_IMAGES, STACK_WITHIN = re.compile(rb"ImageJ=[^\0]{0,500}?\nimages=(\d{1,9})\n"), 64 * 1024


def find_pages(content: bytes | memoryview, most: int) -> list[int]:
    """Return the pages of a file that are images of their own, at most `most` and one more."""
    if tiff.is_tiff(bytes(content[:4])):
        pages = _tiff_pages(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        pages = (number for number, _ in enumerate(frames.list_boxes(content)))
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
        if any(page.has_sub_pages for page in tiff_directory.list_pages(content)):
            raise UndecodableImage(
                "The TIFF holds a preview, and the image itself as raw data of a camera (DNG, NEF, ARW, ...).",
                "Develop it, and send it as PNG, TIFF or JPEG.",
            )
    return 0


def _tiff_pages(content: bytes | memoryview) -> Iterator[int]:
    return (page.place for page in tiff_directory.list_pages(content) if not page.is_copy)


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
