"""Small image files that are made to take much time or memory to decode: one for each way that a format has.

Each function returns a file's bytes. `side` is the width and height in pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def flat(format: str, mode: str = "RGB", **options: object) -> Callable[[int], bytes]:
    """An image of one colour, as Pillow writes it."""

    def make(side: int) -> bytes:
        file = io.BytesIO()
        Image.new(mode, (side, side), 1).save(file, format, **options)
        return file.getvalue()

    return make


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, colour_type: int = 2, depth: int = 8, interlaced: bool = False, before: bytes = b"") -> bytes:
    """A black PNG, with the chunks `before` in front of its pixels."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    passes = [(0, 8), (4, 8), (0, 4), (2, 4), (0, 2), (1, 2), (0, 1)] if interlaced else [(0, 1)]
    rows = [(0, 8), (0, 8), (4, 8), (0, 4), (2, 4), (0, 2), (1, 2)] if interlaced else [(0, 1)]
    packer, packed = zlib.compressobj(9), b""
    for (x, dx), (y, dy) in zip(passes, rows, strict=True):
        width, height = -(-(side - x) // dx), -(-(side - y) // dy)
        line = bytes(1 + (width * channels * depth + 7) // 8)
        for _ in range(height):
            packed += packer.compress(line)
    packed += packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, int(interlaced))
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def interlaced_png(side: int) -> bytes:
    return png(side, interlaced=True)


def png_texts(side: int) -> bytes:
    """Sixty compressed texts, each just short of what Pillow takes for one."""
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))
    return png(side, before=text * 60)


def png_profiles(side: int) -> bytes:
    """A thousand compressed colour profiles."""
    profile = png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))
    return png(side, before=profile * 1000)


def jpeg_scans(side: int, scans: int = 2000) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, comes over and over: each one goes through all pixels."""
    whole = flat("JPEG", progressive=True)(side)
    at = whole.rindex(START_OF_SCAN)
    # From its tables on, so that it can be read again.
    last = whole[at : whole.rindex(END_OF_IMAGE)]
    return whole[:at] + last * scans + END_OF_IMAGE


def jpeg_first_scans(side: int, scans: int = 2000) -> bytes:
    """The same with a first scan of coefficients that are all nil."""
    whole = flat("JPEG", progressive=True)(side)
    starts = [at for at in range(len(whole)) if whole[at : at + 2] == START_OF_SCAN]
    ends = [*starts[1:], whole.rindex(END_OF_IMAGE)]
    scan = whole[starts[1] : ends[1]]
    table = scan.find(b"\xff\xc4")  # the next scan's
    scan = scan if table < 0 else scan[:table]
    return whole[: starts[1]] + scan * scans + END_OF_IMAGE


def tiff_of_one_strip(side: int) -> bytes:
    """An uncompressed TIFF of which every strip is the same row."""
    row = bytes(3 * side)
    entries = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 3, None),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, side, None),
        (277, 3, 1, 3),
        (278, 4, 1, 1),
        (279, 4, side, None),
    ]
    after = 8 + 2 + 12 * len(entries) + 4
    bits, offsets, counts = after, after + 6, after + 6 + 4 * side
    places = {258: bits, 273: offsets, 279: counts}
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, count, places.get(tag, value or 0)) for tag, kind, count, value in entries
    )
    pixels = counts + 4 * side
    return (
        b"II*\0\x08\0\0\0"
        + directory
        + bytes(4)
        + struct.pack("<HHH", 8, 8, 8)
        + struct.pack("<I", pixels) * side
        + struct.pack("<I", len(row)) * side
        + row
    )


def bmp_runs(side: int) -> bytes:
    """A run-length BMP: runs of 255 pixels in two bytes."""
    runs = (b"\xff\1" * (side // 255) + bytes([side % 255, 1]) + b"\0\0") * side + b"\0\1"
    palette = bytes(4 * 256)
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + header + palette + runs


def bmp_skips(side: int) -> bytes:
    """A run-length BMP that skips to its end, 255 rows in four bytes."""
    runs = b"\0\2\0\xff" * (side // 255) + b"\0\2\0" + bytes([side % 255]) + b"\0\1"
    palette = bytes(4 * 256)
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + header + palette + runs


def without_end(make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """A JPEG that is looked through once more, as it lacks its end."""
    return lambda side: make(side).removesuffix(END_OF_IMAGE)


def wrong_checksum(side: int) -> bytes:
    """A PNG whose pixels are unpacked once more, as their checksum is wrong."""
    whole = bytearray(png(side))
    whole[-len(png_chunk(b"IEND", b"")) - 1] ^= 1
    return bytes(whole)


def linear_light(side: int) -> bytes:
    return png(side, depth=16, before=png_chunk(b"gAMA", struct.pack(">I", 100_000)))


def uncovered_gif(side: int) -> bytes:
    """A GIF whose only frame is one pixel of its picture."""
    pixel = flat("GIF", "P")(1)
    return pixel[:6] + struct.pack("<HH", side, side) + pixel[10:]


BOMBS: dict[str, Callable[[int], bytes]] = {
    "WebP, lossless": flat("WEBP", lossless=True),
    "WebP, lossy": flat("WEBP", quality=50),
    "WebP with alpha": flat("WEBP", "RGBA", lossless=True),
    "PNG, RGB": png,
    "PNG, RGBA": lambda side: png(side, colour_type=6),
    "PNG, grey": lambda side: png(side, colour_type=0),
    "PNG, grey with alpha": lambda side: png(side, colour_type=4),
    "PNG, 1 bit": lambda side: png(side, colour_type=0, depth=1),
    "PNG, 16 bit": lambda side: png(side, colour_type=0, depth=16),
    "PNG, 16 bit RGB": lambda side: png(side, depth=16),
    "PNG, palette": flat("PNG", "P"),
    "PNG, interlaced": interlaced_png,
    "PNG, 60 texts of 1 MB": png_texts,
    "PNG, 1000 colour profiles of 1 MB": png_profiles,
    "JPEG": flat("JPEG"),
    "JPEG, progressive": flat("JPEG", progressive=True),
    "JPEG, CMYK": flat("JPEG", "CMYK"),
    "JPEG, 2000 refining scans": jpeg_scans,
    "JPEG, 2000 first scans": jpeg_first_scans,
    "JPEG without its end": without_end(flat("JPEG")),
    "JPEG, progressive, without its end": without_end(flat("JPEG", progressive=True)),
    "JPEG, 2000 refining scans, without its end": without_end(jpeg_scans),
    "PNG, wrong checksum": wrong_checksum,
    "PNG, 16 bit RGB, linear light": linear_light,
    "GIF": flat("GIF", "P"),
    "GIF, one pixel": uncovered_gif,
    "TIFF, LZW": flat("TIFF", compression="tiff_lzw"),
    "TIFF, deflate": flat("TIFF", compression="tiff_deflate"),
    "TIFF, LZMA": flat("TIFF", compression="lzma"),
    "TIFF, Zstandard": flat("TIFF", compression="zstd"),
    "TIFF, 16 bit LZW": flat("TIFF", "I;16", compression="tiff_lzw"),
    "TIFF, 32 bit float deflate": flat("TIFF", "F", compression="tiff_deflate"),
    "TIFF, JPEG": flat("TIFF", compression="jpeg"),
    "TIFF, fax": flat("TIFF", "1", compression="group4"),
    "TIFF, one row for all": tiff_of_one_strip,
    "AVIF": flat("AVIF", speed=10),
    "BMP, runs": bmp_runs,
    "BMP, skips": bmp_skips,
}
