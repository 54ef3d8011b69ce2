"""TIFF files of every kind, and PNGs and arrays of 16 bits: the same picture as at 8 bits, or an error that helps."""

import io
import struct
import zlib

import bodies
import numpy as np
import pytest
import tifffile
from bombs import PNG_SIGNATURE, png_chunk
from PIL import Image, ImageOps

from service.bundle.manifest import ImageSpec
from service.errors import UndecodableImage
from service.images.decode import read_row
from service.images.limits import Limits
from service.images.sample_range import Extent, SampleRange

COLOUR = ImageSpec(height=64, width=64, channels=3)
LIMITS = Limits(1_000_000, 10**8)


@pytest.fixture(scope="module")
def rgb():
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((64, 64), Image.Resampling.BILINEAR)).copy()
    pixels[0, :2] = [[0, 0, 0], [255, 255, 255]]
    return pixels


@pytest.fixture(scope="module")
def grey(rgb):
    return np.asarray(Image.fromarray(rgb).convert("L"))


def tiff(samples, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def png16(samples, colour_type, before=b""):
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return PNG_SIGNATURE + header + before + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def pixels_of(content, samples=None):
    return read_row(content, COLOUR, "fit", LIMITS, samples).pixels


def wide(samples):
    return samples.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (wide, {}),
        (wide, {"byteorder": ">"}),
        (wide, {"bigtiff": True}),
        (wide, {"compression": "lzw", "predictor": True, "tile": (16, 16)}),
        (wide, {"compression": "zlib"}),
        (wide, {"compression": "zstd"}),
        (lambda each: each, {"compression": "webp"}),
        (lambda each: each.astype(np.uint16) << 4, {}),
        (lambda each: each.astype(np.uint16) << 4, {"bitspersample": 12}),
        (lambda each: each.astype(np.uint16) << 2, {"bitspersample": 10}),
        (lambda each: each.astype(np.int16) * 128, {}),
        (lambda each: ((each.astype(np.int32) - 128) * 256).astype(np.int16), {}),
        (lambda each: (each.astype(np.int16) - 128).astype(np.int8), {}),
        (lambda each: each.astype(np.uint32) * 257, {}),
        (lambda each: (each / 255).astype(np.float16), {}),
        (lambda each: (each / 255).astype(np.float32), {"compression": "zlib", "predictor": True}),
        (lambda each: each.astype(np.float64), {}),
    ],
)
def test_every_depth_gives_the_picture_of_8_bits(rgb, grey, make, options):
    assert np.array_equal(pixels_of(tiff(make(rgb), photometric="rgb", **options)), rgb)
    planes = np.moveaxis(make(rgb), -1, 0)
    planar = {name: value for name, value in options.items() if name not in ("compression", "predictor")}
    assert np.array_equal(pixels_of(tiff(planes, photometric="rgb", planarconfig="separate", **planar)), rgb)
    if options.get("compression") != "webp":
        assert np.array_equal(pixels_of(tiff(make(grey), photometric="minisblack", **options))[..., 1], grey)
        inverted = tiff(make(255 - grey), photometric="miniswhite", **options)
        assert np.array_equal(pixels_of(inverted)[..., 1], grey)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_alpha_of_any_depth_is_laid_on_white(rgb, dtype):
    scale = 257 if dtype == np.uint16 else 1 / 255
    alpha = np.zeros((64, 64, 1))
    alpha[:32] = 255
    straight = (np.concatenate([rgb, alpha], axis=2) * scale).astype(dtype)
    multiplied = straight * (alpha > 0)
    expected = np.where(alpha > 0, rgb, 255)
    for samples, kind in ((straight, "unassalpha"), (multiplied, "assocalpha")):
        content = tiff(samples.astype(dtype), photometric="rgb", extrasamples=[kind])
        assert np.array_equal(pixels_of(content), expected)
    assert np.array_equal(pixels_of(tiff(straight, photometric="rgb", extrasamples=["unspecified"])), rgb)
    assert np.array_equal(pixels_of(straight), expected)


def test_png_of_16_bits_in_every_colour(rgb, grey):
    alpha = np.zeros((64, 64, 1), np.uint8)
    alpha[:32] = 255
    on_white = np.where(alpha > 0, rgb, 255)
    grey_on_white = np.where(alpha[..., 0] > 0, grey, 255)
    assert np.array_equal(pixels_of(png16(wide(rgb), 2)), rgb)
    assert np.array_equal(pixels_of(png16(rgb.astype(np.uint16) * 16, 2)), rgb)  # 12 bits in 16
    assert np.array_equal(pixels_of(png16(wide(grey), 0))[..., 2], grey)
    assert np.array_equal(pixels_of(png16(wide(np.concatenate([rgb, alpha], axis=2)), 6)), on_white)
    assert np.array_equal(pixels_of(png16(wide(np.dstack([grey, alpha])), 4))[..., 0], grey_on_white)


def test_a_transparent_colour_of_16_bits(rgb, grey):
    samples = wide(rgb)
    key = png_chunk(b"tRNS", struct.pack(">HHH", *samples[9, 9].tolist()))
    expected = np.where((rgb == rgb[9, 9]).all(axis=2, keepdims=True), 255, rgb)
    assert np.array_equal(pixels_of(png16(samples, 2, key)), expected)
    key = png_chunk(b"tRNS", struct.pack(">H", int(wide(grey)[9, 9])))
    assert np.array_equal(pixels_of(png16(wide(grey), 0, key))[..., 0], np.where(grey == grey[9, 9], 255, grey))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned(rgb, orientation):
    content = tiff(wide(rgb), extratags=[(274, "H", 1, orientation, True)])
    image = Image.fromarray(rgb)
    image.getexif()[274] = orientation
    assert np.array_equal(pixels_of(content), np.asarray(ImageOps.exif_transpose(image)))


def test_tags_may_state_the_range(grey):
    dark = grey.astype(np.uint16) * 2
    stated = tiff(dark, extratags=[(281, "H", 1, 4095, True)])
    assert np.array_equal(pixels_of(stated)[..., 0], dark >> 4)
    statistic = tiff(dark, extratags=[(281, "H", 1, int(dark.max()), True)])
    assert np.array_equal(pixels_of(statistic)[..., 0], dark * 256 // 512 if dark.max() > 511 else dark >> 2)
    degrees = tiff(grey / 10 - 5, extratags=[(340, "d", 1, -5.0, True), (341, "d", 1, 20.5, True)])
    assert np.array_equal(pixels_of(degrees)[..., 0], grey)


def test_samples_that_are_missing_are_black(grey):
    floats = (grey / 255).astype(np.float32)
    for missing, tags in ((np.nan, []), (-9999, [(42113, "s", 0, "-9999", True)])):
        content = tiff(np.where(grey > 200, missing, floats).astype(np.float32), extratags=tags)
        assert np.array_equal(pixels_of(content)[..., 0], np.where(grey > 200, 0, grey))


@pytest.mark.parametrize(("dtype", "missing"), [(np.int16, -32768), (np.int16, -9999), (np.uint16, 65535)])
def test_whole_numbers_that_stand_for_missing_samples_have_no_part_in_the_range(grey, dtype, missing):
    heights = (grey.astype(dtype) << 4) + 5
    content = tiff(np.where(grey > 200, dtype(missing), heights), extratags=[(42113, "s", 0, str(missing), True)])
    expected = pixels_of(tiff(np.where(grey > 200, dtype(5), heights)))
    assert np.array_equal(pixels_of(content), expected)
    assert expected.max() > 150


def test_cmyk_and_palettes_of_16_bits(rgb):
    cmyk = Image.fromarray(rgb).convert("CMYK")
    content = tiff(wide(np.asarray(cmyk)), photometric="separated")
    assert np.array_equal(pixels_of(content), np.asarray(cmyk.convert("RGB")))
    colormap = np.zeros((3, 65536), np.uint16)
    colormap[:, :4] = [[0, 65535, 0, 30000], [0, 0, 65535, 30000], [0, 0, 0, 30000]]
    content = tiff(np.full((64, 64), 2, np.uint16), photometric="palette", colormap=colormap)
    assert (pixels_of(content) == [0, 255, 0]).all()


def test_ranges_that_the_request_has_measured_hold_for_every_image(grey):
    dark = grey.astype(np.uint16)
    measured = SampleRange("file", {"uint16": Extent(0, 65000)})
    assert read_row(tiff(dark), COLOUR, "fit", LIMITS, measured).notes == ("dark",)
    assert not pixels_of(tiff(dark), measured).any()
    beyond = read_row(tiff(dark), COLOUR, "fit", LIMITS, SampleRange("batch", {"uint16": Extent(0, 100)}))
    assert beyond.notes == ("cut",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(np.zeros((8, 8), np.complex64)), "64 bits"),
        (tiff(np.zeros((8, 8, 5), np.uint16), photometric="minisblack", planarconfig="contig"), "5 channels"),
        (tiff(np.zeros((8, 8, 3), np.uint16), photometric="cielab"), "CIELAB"),
        (tiff(np.zeros((8, 8), np.uint16), photometric="cfa"), "CFA"),
        (tiff(np.zeros((8, 8), np.uint32), bitspersample=24), "24 bits"),
        (
            tiff(np.zeros((16, 16, 16), np.uint8), photometric="minisblack", volumetric=True, tile=(16, 16, 16)),
            "16 planes",
        ),
        (tiff(np.zeros((2, 16, 16), np.float32), photometric="minisblack", volumetric=True), "2 planes"),
    ],
)
def test_a_kind_that_is_not_read_is_named(content, words):
    with pytest.raises(UndecodableImage, match=words) as caught:
        pixels_of(content)
    assert "PNG" in caught.value.hint or "planes" in caught.value.hint


def test_arrays_of_every_type_are_read_like_files(rgb):
    assert np.array_equal(pixels_of(wide(rgb)), rgb)
    assert np.array_equal(pixels_of((rgb / 255).astype(">f8")), rgb)
    assert np.array_equal(pixels_of(rgb.astype(np.int64)), rgb)
    assert np.array_equal(pixels_of(rgb[..., 0] > 100)[..., 0], np.where(rgb[..., 0] > 100, 255, 0))
    assert np.array_equal(pixels_of(np.repeat(wide(rgb), 2, axis=1)), pixels_of(bodies.encoded(np.repeat(rgb, 2, 1))))


@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "tile": (16, 16)}])
def test_a_palette_of_levels_up_to_255_is_one_of_bytes(rgb, options):
    image = Image.fromarray(rgb).quantize(200)
    palette = np.zeros((3, 256), np.uint16)
    colours = np.array(image.getpalette(), np.uint16).reshape(-1, 3).T
    palette[:, : colours.shape[1]] = colours
    for scale in (1, 257):
        content = tiff(np.asarray(image), photometric="palette", colormap=palette * np.uint16(scale), **options)
        assert np.array_equal(pixels_of(content), np.asarray(image.convert("RGB")))


def test_the_widest_range_of_64_bits(grey):
    content = tiff(grey.astype(np.uint64) * 0x0101010101010101, photometric="minisblack")
    assert np.array_equal(pixels_of(content)[..., 0], grey)
    assert np.array_equal(pixels_of(grey.astype(np.uint64) * 0x0101010101010101)[..., 0], grey)


def without(content, tag):
    """A little-endian TIFF without the entry of a tag with one SHORT, or three."""
    for count in (1, 3):
        content = content.replace(struct.pack("<HHI", tag, 3, count), struct.pack("<HHI", 65000, 3, count))
    return content


def test_what_a_tiff_does_not_say_is_not_guessed(rgb, grey):
    photometric, bits, samples = 262, 258, 277
    assert np.array_equal(pixels_of(without(tiff(rgb, photometric="rgb"), photometric)), rgb)
    assert np.array_equal(pixels_of(without(tiff(wide(rgb), photometric="rgb"), photometric)), rgb)
    for samples_of_grey in (grey, wide(grey)):
        with pytest.raises(UndecodableImage, match="whether 0 is black or white"):
            pixels_of(without(tiff(samples_of_grey), photometric))
    for content in (tiff(rgb, photometric="rgb"), tiff(grey)):
        with pytest.raises(UndecodableImage, match="how many bits"):
            pixels_of(without(content, bits))
    bilevel = tiff(grey > 100, photometric="minisblack")
    assert np.array_equal(pixels_of(without(bilevel, bits)), pixels_of(bilevel))
    with pytest.raises(UndecodableImage):
        pixels_of(without(tiff(rgb, photometric="rgb"), samples))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("part", [{"rowsperstrip": 16}, {"tile": (16, 16)}])
@pytest.mark.parametrize("make", [np.asarray, wide])
def test_a_tiff_with_too_few_strips_is_refused(rgb, compression, part, make):
    content = tiff(make(rgb), photometric="rgb", compression=compression, **part)
    assert np.array_equal(pixels_of(content), rgb)
    tag, count = (273, 4) if "rowsperstrip" in part else (324, 16)
    entries = [struct.pack("<HHI", tag, kind, count) for kind in (3, 4, 16)]
    entry = next(entry for entry in entries if entry in content)
    with pytest.raises(UndecodableImage, match=f"{count - 1} of the {count} strips or tiles"):
        pixels_of(content.replace(entry, entry[:4] + struct.pack("<I", count - 1)))


def test_luma_and_chroma_that_pillow_does_not_know_are_refused(rgb):
    luma = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    in_rgb, in_ycbcr = (struct.pack("<HHII", 262, 3, 1, photometric) for photometric in (2, 6))
    full = (530, "H", 2, (1, 1), True)
    bt_709 = (529, "2I", 3, (2126, 10000, 7152, 10000, 722, 10000), True)

    def read(*tags):
        return pixels_of(tiff(luma, photometric="rgb", extratags=tags).replace(in_rgb, in_ycbcr))

    assert np.abs(read(full).astype(int) - rgb).max() <= 3
    for tags in ([], [bt_709, full]):  # without a tag chroma has half the resolution
        with pytest.raises(UndecodableImage, match="YCBCR"):
            read(*tags)
