"""Files as old cameras, scanners, screens and browsers write them come out as the picture that was drawn."""

import io
import struct
import zlib

import bombs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from service.bundle.manifest import ImageSpec
from service.errors import UndecodableImage
from service.images.decode import read_row
from service.images.limits import Limits

SIDE = 64
SPEC = ImageSpec(height=SIDE, width=SIDE, channels=3)
LIMITS = Limits(1_000_000)
Y, X = np.mgrid[:SIDE, :SIDE]
# A picture that no turn and no mirror leaves as it is.
COLOUR = np.stack([40 + X * 2.5, 200 - Y * 2.2, 60 + (X + Y) * 1.2], axis=-1).astype(np.uint8)
COLOUR[5:20, 40:60], COLOUR[40:60, 4:14] = (230, 30, 40), (10, 20, 200)
PICTURE = Image.fromarray(COLOUR)
GREY = np.asarray(PICTURE.convert("L"))
PALETTE = PICTURE.quantize(16)
INDEX = np.asarray(PALETTE)
IN_PALETTE = np.asarray(PALETTE.convert("RGB"))
LEVELS = bytes(PALETTE.getpalette()[:48])
ONE_BIT = GREY > 120
LEFT_IS_CLEAR = np.dstack([COLOUR, np.where(X < SIDE // 2, 0, 255)]).astype(np.uint8)
ON_WHITE = np.where(X[..., None] < SIDE // 2, 255, COLOUR)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    8: Image.Transpose.ROTATE_90,
}


def read(content):
    return read_row(content, SPEC, "fit", LIMITS)


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def three(levels):
    return np.repeat(np.asarray(levels)[..., None], 3, axis=-1)


def png(rows, colour_type, depth, *chunks, interlaced=False):
    """A PNG of packed rows of bytes."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour_type, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return bombs.PNG_SIGNATURE + b"".join(bombs.png_chunk(kind, data) for kind, data in parts)


def adam7(pixels):
    """The rows of a PNG of one byte a pixel in the order of its seven passes."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    return [row for left, top, right, down in passes for row in pixels[top::down, left::right]]


def bmp(pixels, bits, compression=0, palette=b"", height=SIDE, masks=()):
    """A BMP, with the masks of its channels in a header of version 4."""
    length = 108 if masks else 40
    at = 14 + length + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", length, SIDE, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0
    )
    header = (header + struct.pack(f"<{len(masks)}I", *masks)).ljust(length, b"\0")
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + header + palette + pixels


def packed(dtype, *masks, alpha=255, height=-SIDE):
    """A BMP of COLOUR and an alpha, in words of `dtype` in which each channel has the bits of its mask."""
    words = np.zeros((SIDE, SIDE), np.uint64)
    for channel, mask in zip((*np.moveaxis(COLOUR, -1, 0), np.full_like(GREY, alpha)), masks, strict=False):
        shift = (mask & -mask).bit_length() - 1
        words |= np.rint(channel * ((mask >> shift) / 255)).astype(np.uint64) << shift
    pixels = words.astype(dtype)[:: 1 if height < 0 else -1].tobytes()
    return bmp(pixels, 8 * np.dtype(dtype).itemsize, 3, height=height, masks=masks)


def tiff_of_bits(bits, photometric, palette=(), fill_order=1):
    """A grey or palette TIFF of 1, 2 or 4 bits, which tifffile does not write."""
    values, per_byte = GREY >> (8 - bits), 8 // bits
    packed = sum((values[:, part::per_byte] << (bits * (per_byte - 1 - part)) for part in range(per_byte)), start=0)
    data = np.asarray(packed, np.uint8)
    if fill_order == 2:
        data = np.packbits(np.unpackbits(data[..., None], axis=-1)[..., ::-1], axis=-1)
    content = data.tobytes()
    tags = {256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: photometric, 266: fill_order, 277: 1, 278: SIDE}
    entries = [(tag, 3, 1, value) for tag, value in tags.items()]
    entries += [(273, 4, 1, 8), (279, 4, 1, len(content))]
    count = len(entries) + bool(palette)
    if palette:
        entries.append((320, 3, len(palette), 8 + len(content) + 2 + 12 * count + 4))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    levels = struct.pack(f"<{len(palette)}H", *palette)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(content))
        + content
        + struct.pack("<H", count)
        + directory
        + bytes(4)
        + levels
    )


RED, GREEN, BLUE = (COLOUR[..., channel].astype(np.uint16) for channel in range(3))
BGRX = b"".join(LEVELS[3 * at : 3 * at + 3][::-1] + b"\0" for at in range(16))
NIBBLES = (INDEX[::-1, ::2] << 4 | INDEX[::-1, 1::2]).astype(np.uint8)
RUNS = b"".join(b"".join(bytes((2, pair)) for pair in row) + b"\0\0" for row in NIBBLES) + b"\0\1"
GREYS_OF_TWO_BITS = three((GREY >> 6) * 85)
SOME_CLEAR = (b"tRNS", bytes([0] * 4 + [255] * 12))
CLEAR_IN_PALETTE = np.where(INDEX[..., None] < 4, 255, IN_PALETTE)
ROWS_OF_BITS = np.packbits(ONE_BIT, axis=1)
COLOURS_OF_TWO_BITS = np.array([[0, 0, 0], [255, 0, 128], [0, 255, 64], [255, 255, 255]])

EXACT = {
    "PNG, palette, interlaced, with transparency": (
        png(adam7(INDEX), 3, 8, (b"PLTE", LEVELS), SOME_CLEAR, interlaced=True), CLEAR_IN_PALETTE),
    "PNG of 1 bit, black is transparent": (png(ROWS_OF_BITS, 0, 1, (b"tRNS", b"\0\0")), np.full_like(COLOUR, 255)),
    "PNG of 1 bit, white is transparent": (png(ROWS_OF_BITS, 0, 1, (b"tRNS", b"\0\1")), three(ONE_BIT * 255)),
    "PNG with a background colour": (png(GREY, 0, 8, (b"bKGD", b"\0\x40")), three(GREY)),
    "PNG that tells its significant bits": (png(COLOUR.reshape(SIDE, -1), 2, 8, (b"sBIT", b"\5\6\5")), COLOUR),
    "PNG without its end": (saved(PICTURE, "PNG")[:-12], COLOUR),
    "PNG with something behind it": (saved(PICTURE, "PNG") + b"more" * 99, COLOUR),
    "animated PNG with an image for viewers that show no animation": (
        saved(PICTURE, "PNG", save_all=True, default_image=True, append_images=[ImageOps.invert(PICTURE)] * 2), COLOUR),
    "BMP from top to bottom": (bmp(COLOUR[..., ::-1].tobytes(), 24, height=-SIDE), COLOUR),
    "BMP of 16 bits": (
        bmp((RED >> 3 << 10 | GREEN >> 3 << 5 | BLUE >> 3)[::-1].tobytes(), 16), (COLOUR >> 3).astype(int) * 255 // 31),
    "BMP of red, green and blue from the lowest byte on": (
        packed("<u4", 0xFF, 0xFF00, 0xFF0000, height=SIDE), COLOUR),
    "BMP of 10 bits a channel": (packed("<u4", 0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000), COLOUR),
    "BMP of 10 bits a channel, clear": (
        packed("<u4", 0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000, alpha=85), np.rint(COLOUR / 3 + 170)),
    "BMP of 4 bits": (bmp(NIBBLES.tobytes(), 4, palette=BGRX), IN_PALETTE),
    "BMP of 4 bits in runs": (bmp(RUNS, 4, 2, BGRX), IN_PALETTE),
    "BMP of OS/2": (
        b"BM" + struct.pack("<IHHIIHHHH", 26 + 3 * SIDE**2, 0, 0, 26, 12, SIDE, SIDE, 1, 24)
        + COLOUR[::-1, :, ::-1].tobytes(), COLOUR),
    "WebP with colours under its transparency": (
        saved(Image.fromarray(LEFT_IS_CLEAR), "WEBP", lossless=True, exact=True), ON_WHITE),
    "animated WebP": (
        saved(PICTURE, "WEBP", save_all=True, append_images=[ImageOps.invert(PICTURE)], lossless=True), COLOUR),
    "GIF, interlaced": (saved(PALETTE, "GIF", interlace=1), IN_PALETTE),
    "TIFF of 2 bits": (tiff_of_bits(2, 1), GREYS_OF_TWO_BITS),
    "TIFF of 2 bits, white is zero": (tiff_of_bits(2, 0), 255 - GREYS_OF_TWO_BITS),
    "TIFF of 2 bits, the lowest bit first": (tiff_of_bits(2, 1, fill_order=2), GREYS_OF_TWO_BITS),
    "TIFF of 2 bits with a palette": (
        tiff_of_bits(2, 3, (257 * COLOURS_OF_TWO_BITS.T).ravel().tolist()), COLOURS_OF_TWO_BITS[GREY >> 6]),
    "TIFF of fax": (saved(Image.fromarray(ONE_BIT), "TIFF", compression="group4"), three(ONE_BIT * 255)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_it_is_read_as_it_was_drawn(name):
    content, expected = EXACT[name]
    assert np.abs(read(content).pixels.astype(int) - expected).max() <= 1


def test_a_bmp_of_16_bits_has_its_alpha():
    for masks, most in (((0xF00, 0xF0, 0xF, 0xF000), 9), ((0x7C00, 0x3E0, 0x1F, 0x8000), 5)):
        opaque = packed("<u2", *masks)
        assert np.abs(read(opaque).pixels.astype(int) - COLOUR).max() <= most
        clear = bytearray(opaque)
        clear[14 + 108 + 1 :: 2] = bytes(byte & ~(masks[3] >> 8) for byte in clear[14 + 108 + 1 :: 2])
        clear[-2 * SIDE * 32 :] = opaque[-2 * SIDE * 32 :]  # the lower half stays
        pixels = read(bytes(clear)).pixels
        assert (pixels[:32] == 255).all()
        assert np.abs(pixels[32:].astype(int) - COLOUR[32:]).max() <= most
        with pytest.raises(UndecodableImage, match="needs"):
            read(opaque[:-1])


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("format", ["AVIF", "WEBP", "PNG"])
def test_it_is_turned_once(format, orientation):
    """Pillow writes the turn of an AVIF as the format has it (irot, imir), and tells it as EXIF when it reads."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}, "WEBP": {"lossless": True}, "PNG": {}}[format]
    expected = np.asarray(PICTURE.transpose(TURNS[orientation])).astype(int)
    assert np.abs(read(saved(PICTURE, format, exif=exif, **options)).pixels - expected).max() <= 3


def test_a_gain_map_behind_a_jpeg_is_left_out():
    options = {"quality": 95, "subsampling": 0}
    gain_map = PICTURE.convert("L").resize((16, 16)).convert("RGB")
    content = saved(PICTURE, "MPO", save_all=True, append_images=[gain_map], **options)
    assert np.array_equal(read(content).pixels, read(saved(PICTURE, "JPEG", **options)).pixels)


@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
def test_alpha_may_be_multiplied_into_the_colours(alpha):
    colours = np.rint(COLOUR * (128 / 255)) if alpha == "assocalpha" else COLOUR
    file = io.BytesIO()
    pixels = np.dstack([colours, np.full_like(GREY, 128)]).astype(np.uint8)
    tifffile.imwrite(file, pixels, photometric="rgb", extrasamples=[alpha])
    assert np.abs(read(file.getvalue()).pixels.astype(int) - (COLOUR * (128 / 255) + 127)).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_half_a_file_is_no_image(format):
    content = saved(PALETTE if format == "GIF" else PICTURE, format)
    with pytest.raises(UndecodableImage):
        read(content[: len(content) // 2])
