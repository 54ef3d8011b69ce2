"""Files that are no images, or none that are read: each is told by its first bytes, with what to do about it."""

import io
import struct
import zlib

import bodies
import imagecodecs
import numpy as np
import pytest
from bombs import png_chunk
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.errors import InvalidInput, UndecodableImage
from service.images.archives import read_archive
from service.images.arrays import read_npy
from service.images.decode import to_row
from service.images.formats.files import FORMATS
from service.images.formats.other_files import explain_damage, identify, identify_any
from service.images.limits import Limits

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
PNG, JPEG = bodies.encoded(PIXELS), bodies.encoded(PIXELS, "JPEG")
SPEC, LIMITS = ImageSpec(height=8, width=8, channels=3), Limits(10_000)


def saved(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).resize((16, 16)).save(file, format)
    return file.getvalue()


def saved_as(mode: str, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (saved("ICO"), "icon"),
        (saved("TGA"), "TGA"),
        (saved("PPM"), "PNM"),
        (b"P2\n2 1\n255\n0 255\n", "PNM"),
        (saved("JPEG2000"), "JPEG 2000"),
        (imagecodecs.jpegxl_encode(PIXELS), "JPEG XL|JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (saved("DDS"), "DDS"),
        (bytes(128) + b"DICM" + bytes(99), "DICOM"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw file"),
        (b"\0\0\0\x18ftypcrx \0\0", "raw file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "film"),
        (b"RIFF\0\0\0\0AVI LIST", "film"),
        (b"\x80\x04\x95" + bytes(20), "pickle"),
        (b"\0\0\x08\x03\0\0\0\x0c", "IDX"),
        (b"PK\x07\x08PK\x03\x04", "split zip"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "MATLAB"),
        (b"ARROW1\0\0" + bytes(8), "Arrow"),
        (b"SQLite format 3\0", "SQLite"),
        (struct.pack("<i", 348) + bytes(344), "NIfTI"),
        (struct.pack(">i", 348) + bytes(344), "NIfTI"),
        (b"NRRD0004\ntype: uchar\n", "NRRD"),
        (b"ZISRAWFILE" + bytes(22), "CZI"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OIB"),
        (imagecodecs.jpegxr_encode(PIXELS.repeat(4, 0).repeat(4, 1)), "JPEG XR"),
        (saved("ICNS"), "ICNS"),
        (saved("PCX"), "PCX"),
        (saved("SGI"), "SGI"),
        (saved("EPS"), "PostScript"),
        (b"\x01\0\0\0" + bytes(36) + b" EMF", "EMF"),
        (b"\x7fELF\2\1\1", "program"),
        (b"\0\0\2\0" + saved("ICO")[4:], "cursor"),
        (saved_as("L", "TGA"), "TGA"),
        (saved_as("P", "TGA"), "TGA"),
        (saved_as("RGB", "TGA", compression="tga_rle"), "TGA"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "AppleDouble"),
        (struct.pack("<Q", 60) + b'{"images":{"dtype":"U8"}}', "safetensors"),
        (bytes(5000), "zeros"),
        (b"\0\0\1\xba" + bytes(99), "film"),
        (b'--------x1\r\nContent-Disposition: attachment; filename="a.png"\r\n\r\n' + PNG, "form"),
    ],
)
def test_other_kinds_of_files_are_named(content, name):
    kind = identify(content)
    assert kind is not None
    assert kind.hint
    assert any(word in kind.name for word in name.split("|"))


@pytest.mark.parametrize("format", FORMATS)
def test_images_that_are_read_are_none_of_them(format):
    assert identify(saved(format)) is None
    assert identify_any(saved(format)) is not None or format == "AVIF"


CHANGED = [
    (PNG.decode("utf-8", "replace").encode(), "as text"),
    (JPEG.decode("utf-8", "replace").encode(), "as text"),
    (PNG.decode("latin-1").encode(), "as text"),
    (PNG.replace(b"\r\n", b"\n"), "line ends"),
    (PNG.replace(b"\r", b"").replace(b"\n", b""), "curl -d"),
    (b"\r\n" + JPEG, "2 bytes before it"),
    (imagecodecs.jpeg_encode(PIXELS.astype(np.uint16) << 4, bitspersample=12), "12 bits"),
    (imagecodecs.jpegls_encode(PIXELS), "JPEG-LS"),
]


@pytest.mark.parametrize(("content", "told"), CHANGED)
def test_what_happened_to_an_image_is_told(content, told):
    with pytest.raises(UndecodableImage, match=told) as caught:
        to_row(content, SPEC, "fit", LIMITS)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (PNG[:8], "cut short"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "cut short"),
        (b"\0\0\0\x18ftypM4A " + bytes(40), "own bytes"),
        (b"II*\0\x08\0\0\0" + bytes(60), "cut short"),
        (bytes(range(200, 250)), "own bytes"),
    ],
)
def test_what_cannot_be_read_is_called_damaged_where_it_begins_as_an_image(content, hint):
    with pytest.raises(UndecodableImage) as caught:
        to_row(content, SPEC, "fit", LIMITS)
    assert hint in caught.value.hint


def test_images_and_what_is_unknown_are_not_explained():
    assert [explain_damage(content) for content in (PNG, JPEG, b"", b"\xff\xd8", bytes(99))] == [None] * 5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (PNG, "PNG image"),
        (JPEG, "JPEG image"),
        (bodies.npy(PIXELS), "npy array"),
        (zlib.compress(b"x"), "not a complete zip"),
        (b"<html>", "page"),
        (bodies.zipped({"a.png": PNG})[:-30], "cut short"),
    ],
)
def test_what_came_in_place_of_an_archive_is_named(content, told):
    with pytest.raises(InvalidInput) as caught:
        read_archive(content, 10, 10**6)
    assert told in str(caught.value)


def test_what_came_in_place_of_an_array_is_named():
    with pytest.raises(InvalidInput, match="it is a zip"):
        read_npy(bodies.zipped({"images.npy": bodies.npy(PIXELS)}))


# ---- PNG ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_level_of_few_bits_is_laid_on_white(bits):
    most = 2**bits - 1
    levels = np.random.default_rng(bits).integers(0, most + 1, (8, 8), dtype=np.uint8)
    packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., 8 - bits :].reshape(8, -1), axis=1)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0))
    rows = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)))
    for key in range(most + 1):
        file = PNG[:8] + header + png_chunk(b"tRNS", struct.pack(">H", key)) + rows + png_chunk(b"IEND", b"")
        expected = np.where(levels == key, 255, levels * (255 // most))
        assert np.array_equal(to_row(file, SPEC, "fit", LIMITS)[..., 0], expected)
