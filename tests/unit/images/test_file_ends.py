"""Files whose end is damaged or zeros: they are refused where pixels are missing, and read where none is."""

import io
import struct

import numpy as np
import pillow_heif
import pytest
import tifffile
from bombs import PNG_SIGNATURE, png_chunk
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.errors import UndecodableImage
from service.images.decode import read_row
from service.images.limits import Limits

SPEC, LIMITS = ImageSpec(height=64, width=64, channels=3), Limits(1_000_000)
SMALL = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
PICTURE = Image.fromarray(SMALL).resize((64, 64), Image.Resampling.BICUBIC)
SIXTEEN_BITS = np.asarray(PICTURE).astype(np.uint16) * 257


def saved(format, **options):
    file = io.BytesIO()
    PICTURE.save(file, format, **options)
    return file.getvalue()


def tiff(samples, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", **options)
    return file.getvalue()


def heic():
    file = io.BytesIO()
    pillow_heif.from_pillow(PICTURE).save(file, quality=90)
    return file.getvalue()


def pixels_of(content):
    return read_row(content, SPEC, "fit", LIMITS).pixels


@pytest.mark.parametrize(
    "content",
    [
        saved("PNG"),
        saved("JPEG"),
        saved("JPEG", progressive=True),
        saved("WEBP"),
        saved("WEBP", lossless=True),
        saved("WEBP", save_all=True, append_images=[PICTURE.rotate(90)]),
        saved("AVIF"),
        heic(),
        saved("GIF"),
        saved("TIFF", compression="tiff_lzw"),
        tiff(SIXTEEN_BITS, compression="zlib"),
    ],
)
def test_zeros_in_place_of_pixels_are_refused(content):
    whole = pixels_of(content)
    for share in (0.1, 0.3, 0.5, 0.8):
        missing = int(share * len(content))
        with pytest.raises(UndecodableImage):
            pixels_of(content[:-missing] + bytes(missing))
    assert np.array_equal(pixels_of(content + bytes(5000)), whole)  # behind the file they do no harm


def test_exif_that_ends_in_zeros_is_no_damage():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved("WEBP", lossless=True, exif=exif.tobytes() + bytes(500))
    assert content.endswith(bytes(500))
    assert np.array_equal(pixels_of(content), np.asarray(PICTURE.transpose(Image.Transpose.ROTATE_270)))


def test_a_png_whose_checksums_are_wrong_is_read_where_its_pixels_are_right():
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(PICTURE))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    content = saved("PNG")
    wrong = bytearray(content)
    wrong[-13] ^= 1  # of the checksum of the pixels
    assert np.array_equal(pixels_of(bytes(wrong)), np.asarray(PICTURE))
    stored = b"\x78\1\1" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows  # as it is, without its checksum
    plain = PNG_SIGNATURE + header + png_chunk(b"IDAT", stored) + png_chunk(b"IEND", b"")
    assert np.array_equal(pixels_of(plain), np.asarray(PICTURE))
    changed = bytearray(plain)
    changed[5000] ^= 64
    with pytest.raises(UndecodableImage, match="differ from their checksum"):
        pixels_of(bytes(changed))


@pytest.mark.parametrize(
    "options", [{"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"big_tiff": True}, {}]
)
def test_a_tiff_without_the_end_of_its_directory_is_refused(options):
    """Its last bytes tell how many bits a sample has."""
    content = saved("TIFF", **options)
    assert np.array_equal(pixels_of(content), np.asarray(PICTURE))
    for missing in range(1, 40):
        with pytest.raises(UndecodableImage):
            pixels_of(content[:-missing])
