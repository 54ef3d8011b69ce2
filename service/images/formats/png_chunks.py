"""Drops chunks of a PNG that nothing needs: compressed texts, and whatever is damaged beside the pixels.

Pillow unpacks every text to read the header, and a kilobyte of text may unpack to a megabyte, so that a file full of
texts takes seconds. An image needs only its colour profile, and the orientation in the texts that hold EXIF or XMP.
Pillow also refuses a file for a wrong checksum in any chunk, although every other chunk may be left out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from service.errors import UndecodableImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD, CHECKSUM = struct.Struct(">I4s"), struct.Struct(">I")
COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
USED_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")
LONGEST_KEYWORD = 79
# Chunks without which an image is another one, and those that say what its colours are.
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
COLOUR = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP")
LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
# Places in the header of the number of bits and of the kind of colours, of which 0 is grey.
BITS_AT, COLOUR_AT, GREY = 24, 25, 0
# Of a pixel, with what stands before each row of it.
MOST_PIXEL_BYTES = 9
UNPACKED_AT_A_TIME = 1024 * 1024
# What Pillow takes of a profile, unpacked.
LONGEST_PROFILE = 1024 * 1024
# cICP comes before the pixels, mostly as one of the first chunks.
CICP_WITHIN = 4096


def drop_unused_texts(content: bytes | memoryview) -> tuple[bytes | memoryview, int]:
    """Return a PNG file with only the first profile and the first of each text that is used, and their number.

    Any other file is returned as it is, and so is the rest of a PNG from the first damaged chunk on.
    """
    if content[: len(SIGNATURE)] != SIGNATURE:
        return content, 0
    whole = bytes(content)
    if b"zTXt" not in whole and b"iTXt" not in whole and b"iCCP" not in whole:
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


def drop_damaged(content: bytes | memoryview) -> bytes | None:
    """Return a PNG file with the critical chunks, and of the others only sound ones that say what its colours are.

    Return None where `content` is another file, or has no other chunks.
    """
    whole = bytes(content)
    if whole[: len(SIGNATURE)] != SIGNATURE:
        return None
    pieces: list[bytes | memoryview] = [SIGNATURE]
    for kind, _, chunk in _chunks(whole):
        if kind in CRITICAL or (kind in COLOUR and _is_sound(kind, chunk)):
            pieces.append(chunk)
        elif not kind:
            pieces.append(chunk)  # the damaged rest
        if kind == b"IEND":
            break
    kept = b"".join(pieces)
    return None if kept == whole else kept


def check_pixels(content: bytes | memoryview, size: tuple[int, int]) -> None:
    """Raise UndecodableImage where the pixels of a PNG of that (width, height) differ from their checksums.

    Pillow looks at none but the last, and not at that where the picture is full before. A wrong checksum of a chunk
    alone does no harm.
    """
    if content[: len(SIGNATURE)] != SIGNATURE or _has_sound_pixels(content):
        return
    unpacker, left = zlib.decompressobj(), MOST_PIXEL_BYTES * (size[0] + 8) * (size[1] + 8)
    with suppress(zlib.error):
        for kind, _, chunk in _chunks(content):
            data = bytes(chunk[8:-4]) if kind == b"IDAT" else b""
            while data and left > 0 and not unpacker.eof:
                left -= len(unpacker.decompress(data, UNPACKED_AT_A_TIME))
                data = unpacker.unconsumed_tail
        if unpacker.eof:
            return
    raise UndecodableImage(
        "The PNG's pixels are damaged: they differ from their checksum.",
        "It was not written, or not downloaded, to its end: send it again.",
    )


def _has_sound_pixels(content: bytes | memoryview) -> bool:
    """Return whether the checksum of every chunk of pixels is right. Pillow tells where a chunk ends too early."""
    view, at, last = memoryview(content), len(SIGNATURE), len(content) - 12
    while at <= last:
        length, kind = HEAD.unpack_from(view, at)
        end = at + 8 + length
        if kind == b"IDAT" and end + 4 <= len(view):
            (checksum,) = CHECKSUM.unpack_from(view, end)
            if zlib.crc32(view[at + 4 : end]) != checksum:
                return False
        at = end + 4
    return True


def scale_key(head: bytes, info: dict[Any, Any]) -> None:
    """Bring the transparent level of a grey PNG of 2 or 4 bits to the 8 bits that Pillow makes of its pixels.

    Pillow leaves the level in `info` as the file has it. `head` is the file's beginning.
    """
    if head[: len(SIGNATURE)] == SIGNATURE and head[BITS_AT] in (2, 4) and head[COLOUR_AT] == GREY:
        key = info.get("transparency")
        if isinstance(key, int):
            info["transparency"] = key * 255 // (2 ** head[BITS_AT] - 1)


def has_profile(content: bytes | memoryview) -> bool:
    return b"iCCP" in bytes(content)


def _is_sound(kind: bytes, chunk: memoryview) -> bool:
    data = chunk[8:-4]
    if len(chunk) < 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    if kind == b"iCCP":
        unpacker = zlib.decompressobj()
        try:
            unpacker.decompress(bytes(data).partition(b"\0")[2][1:], LONGEST_PROFILE)
        except zlib.error:
            return False
        return unpacker.eof
    return len(data) == LENGTHS.get(kind, len(data))


def find_cicp(content: bytes | memoryview) -> tuple[int, int, bool] | None:
    """Return the numbers of the primaries and of the transfer function in a PNG's cICP chunk, and whether its range is
    that of video; None where it has none.

    Pillow does not read this chunk.
    """
    if content[:1] != SIGNATURE[:1]:
        return None
    whole = bytes(content)
    start = whole.find(b"cICP", 0, CICP_WITHIN)
    if start < 0 or whole[start - 4 : start] != b"\0\0\0\4" or b"IDAT" in whole[:start] or start + 8 > len(whole):
        return None
    return whole[start + 4], whole[start + 5], whole[start + 7] == 0


def _chunks(content: bytes | memoryview) -> Iterator[tuple[bytes, bytes, memoryview]]:
    """Yield each chunk's type, the start of its data up to a NUL, and the whole chunk. A damaged rest comes as one."""
    view, offset = memoryview(content), len(SIGNATURE)
    while offset < len(content):
        if len(content) - offset < 12:
            yield b"", b"", view[offset:]
            return
        length, kind = struct.unpack_from(">I4s", content, offset)
        data = bytes(content[offset + 8 : offset + 8 + min(length, LONGEST_KEYWORD + 1)])
        yield kind, data.partition(b"\0")[0], view[offset : offset + 12 + length]
        offset += 12 + length
