"""Colours in files come out as sRGB, whatever the file says that they are."""

import io
import struct
import zlib

import bombs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from service.bundle.manifest import ImageSpec
from service.images.decode import read_row
from service.images.formats import colour, heif, profiles
from service.images.limits import Limits

COLOUR = ImageSpec(height=16, width=16, channels=3)
GREY = ImageSpec(height=16, width=16, channels=1)
LIMITS = Limits(1_000_000)
DISPLAY_P3, BT_2020 = 12, 9
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def read(image, format="PNG", spec=COLOUR, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return read_row(file.getvalue(), spec, "fit", LIMITS)


def flat(mode, value):
    return Image.new(mode, (16, 16), value)


def profile(space="RGB", primaries=colour.PRIMARIES[DISPLAY_P3], gamma=2.2):
    """An ICC profile (version 2) of a display with these primaries, or of grey, and a gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"

    def xyz(values):
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        # To the white of ICC, D50, by Bradford's matrix.
        to_d50 = np.array([[1.0478, 0.0229, -0.0501], [0.0296, 0.9905, -0.0171], [-0.0092, 0.0151, 0.7517]])
        columns = (to_d50 @ colour._to_xyz(primaries)).T
        tags |= {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, offset + len(data), len(content))
        data += content
    size = offset + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", space.ljust(4).encode(), b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def naive_srgb(levels, primaries, to_linear):
    """One colour to sRGB, without adaptation: the white must be that of sRGB."""
    linear = np.linalg.inv(naive_xyz(colour.SRGB)) @ naive_xyz(primaries) @ [to_linear(level / 255) for level in levels]
    linear = np.clip(linear, 0, 1)
    return [round(255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055)) for v in linear]


def naive_xyz(primaries):
    columns = [[x / y, 1, (1 - x - y) / y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)]
    red, green, blue, white = map(np.array, columns)
    shares = np.linalg.inv(np.stack([red, green, blue], axis=1)) @ white
    return np.stack([red, green, blue], axis=1) * shares


def srgb_to_linear(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_applied(format):
    options = {"quality": 100} if format in ("JPEG", "WEBP") else {}
    result = read(flat("RGB", (200, 100, 50)), format, icc_profile=profile(), **options)
    expected = naive_srgb((200, 100, 50), colour.PRIMARIES[DISPLAY_P3], lambda value: value**2.2)
    assert result.notes == ()
    assert np.abs(result.pixels[8, 8].astype(int) - expected).max() <= (3 if options else 1)


def test_the_profile_of_srgb_changes_nothing():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    assert np.array_equal(read(noise, icc_profile=SRGB_PROFILE).pixels, np.asarray(noise))
    assert colour.find_conversion({"icc_profile": SRGB_PROFILE}, "RGB") is None


def test_a_profile_of_grey_serves_grey_with_and_without_alpha():
    dark = profile("GRAY", gamma=1.0)
    expected = naive_srgb((100, 100, 100), colour.SRGB, lambda value: value)
    for spec in (COLOUR, GREY):
        for image in (flat("L", 100), flat("LA", (100, 255))):
            pixels = read(image, spec=spec, icc_profile=dark).pixels
            assert np.abs(pixels.astype(int) - expected[0]).max() <= 1


def test_alpha_and_palettes_keep_their_profile():
    expected = naive_srgb((200, 100, 50), colour.PRIMARIES[DISPLAY_P3], lambda value: value**2.2)
    image = flat("RGBA", (200, 100, 50, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 16))
    pixels = read(image, icc_profile=profile()).pixels
    assert (pixels[:, :8] == 255).all()
    assert np.abs(pixels[8, 12].astype(int) - expected).max() <= 1
    palette = flat("RGB", (200, 100, 50)).quantize(4)
    assert np.abs(read(palette, icc_profile=profile()).pixels[8, 8].astype(int) - expected).max() <= 1


def test_lab_is_read_and_needs_no_profile():
    lab = flat("LAB", (255, 128, 128))
    for options in ({}, {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()}):
        result = read(lab, "TIFF", **options)
        assert result.pixels.min() > 250
        assert result.notes == ()


@pytest.mark.parametrize("content", [b"no profile", profile()[:200], profile("GRAY"), b""])
def test_a_profile_that_cannot_be_used_is_noted(content):
    result = read(flat("RGB", (200, 100, 50)), icc_profile=content or None)
    assert (result.pixels == [200, 100, 50]).all()
    assert result.notes == (("profile",) if content else ())


def test_damage_of_a_profile_in_its_chunk_is_noted():
    name = b"name\0\0" + zlib.compress(bytes(2 * 1024**2))
    result = read_row(bombs.png(16, before=bombs.png_chunk(b"iCCP", name)), COLOUR, "fit", LIMITS)
    assert result.notes == ("profile",)


def png_with(**chunks):
    file = io.BytesIO()
    flat("RGB", (200, 100, 50)).save(file, "PNG")
    before = b"".join(bombs.png_chunk(kind.encode(), data) for kind, data in chunks.items())
    return file.getvalue()[:33] + before + file.getvalue()[33:]


def test_gamma_and_chromaticities_of_png():
    def pixel(**chunks):
        return read_row(png_with(**chunks), COLOUR, "fit", LIMITS).pixels[8, 8].tolist()

    linear, usual = struct.pack(">I", 100_000), struct.pack(">I", 45_455)
    p3 = colour.PRIMARIES[DISPLAY_P3]
    # Of a PNG white comes first.
    chromaticity = struct.pack(">8I", *(round(value * 100_000) for value in (*p3[6:], *p3[:6])))
    assert pixel(gAMA=usual) == [200, 100, 50]
    assert pixel(gAMA=linear) == naive_srgb((200, 100, 50), colour.SRGB, lambda value: value)
    assert pixel(gAMA=linear, sRGB=b"\0") == [200, 100, 50]
    assert pixel(gAMA=usual, cHRM=chromaticity) == naive_srgb((200, 100, 50), p3, lambda value: value**2.2)


LINEAR_PROFILE = profile(primaries=colour.SRGB, gamma=1.0)
DARK = np.minimum(np.arange(256) ** 2, 65535).astype(np.uint16).reshape(16, 16)  # half of it below 25 of 255


def encoded_srgb(linear):
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def deep_png(samples, colour_type, kind, data):
    header = struct.pack(">IIBBBBB", 16, 16, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = ((b"IHDR", header), (kind, data), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return bombs.PNG_SIGNATURE + b"".join(bombs.png_chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cICP", bytes([1, 8, 0, 1])),
        (b"iCCP", b"linear\0\0" + zlib.compress(LINEAR_PROFILE)),
    ],
)
def test_dark_tones_of_linear_light_keep_their_16_bits(kind, data):
    expected = encoded_srgb(DARK / 65535)
    in_colour = np.stack([DARK, DARK[::-1], DARK.T], axis=-1)
    in_colour_expected = np.stack([expected, expected[::-1], expected.T], axis=-1)
    alpha = np.full((16, 16, 1), 65535, np.uint16)
    for content in (
        deep_png(in_colour, 2, kind, data),
        deep_png(np.concatenate([in_colour, alpha], axis=2), 6, kind, data),
    ):
        assert np.abs(read_row(content, COLOUR, "fit", LIMITS).pixels - in_colour_expected).max() <= 1
    for content in (deep_png(DARK[..., None], 0, kind, data), deep_png(np.dstack([DARK, alpha]), 4, kind, data)):
        result = read_row(content, COLOUR, "fit", LIMITS)
        assert np.abs(result.pixels - expected[..., None]).max() <= 1
        assert result.notes == ()


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_dark_tones_of_a_linear_tiff_keep_their_bits(photometric):
    is_inverted = photometric == "miniswhite"
    for samples, white in ((DARK, 65535), ((DARK / 65535).astype(np.float32), 1)):
        inverted = white - samples if is_inverted else samples
        file = io.BytesIO()
        tifffile.imwrite(file, inverted, photometric=photometric, iccprofile=profile("GRAY", gamma=1.0))
        pixels = read_row(file.getvalue(), COLOUR, "fit", LIMITS).pixels
        assert np.abs(pixels - encoded_srgb(DARK / 65535)[..., None]).max() <= 1


def test_dark_tones_of_linear_grey_are_not_rounded_away():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = read(Image.fromarray(levels), icc_profile=profile("GRAY", gamma=1.0)).pixels
    assert np.abs(pixels - encoded_srgb(levels / 255)[..., None]).max() <= 1


def test_cicp_goes_first():
    def pixel(primaries, transfer, is_full=1, **chunks):
        chunk = bytes([primaries, transfer, 0, is_full])
        return read_row(png_with(cICP=chunk, **chunks), COLOUR, "fit", LIMITS).pixels[8, 8].tolist()

    p3 = colour.PRIMARIES[DISPLAY_P3]
    assert pixel(1, 13) == pixel(2, 2) == pixel(1, 1) == [200, 100, 50]
    assert pixel(DISPLAY_P3, 13) == naive_srgb((200, 100, 50), p3, srgb_to_linear)
    assert pixel(DISPLAY_P3, 13, gAMA=struct.pack(">I", 100_000)) == pixel(DISPLAY_P3, 13)
    assert pixel(1, 8) == naive_srgb((200, 100, 50), colour.SRGB, lambda value: value)
    video = [round((level - 16) / 219 * 255) for level in (200, 100, 50)]
    assert pixel(1, 13, is_full=0) == video
    assert pixel(1, 8, is_full=0) == naive_srgb([(v - 16) / 219 * 255 for v in (200, 100, 50)], colour.SRGB, float)


def test_heic_may_name_its_colours_by_number():
    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    image.save(
        file, "HEIF", quality=-1, chroma=444, matrix_coefficients=0, color_primaries=12, transfer_characteristics=13
    )
    expected = naive_srgb((200, 100, 50), colour.PRIMARIES[DISPLAY_P3], srgb_to_linear)
    assert np.abs(read_row(file.getvalue(), COLOUR, "fit", LIMITS).pixels[8, 8].astype(int) - expected).max() <= 2


def test_avif_may_name_its_colours_by_number():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(file, "AVIF", quality=100, subsampling="4:4:4")
    box = struct.pack(">8sHH", b"colrnclx", 1, 13)
    assert box in file.getvalue()
    content = file.getvalue().replace(box, struct.pack(">8sHH", b"colrnclx", DISPLAY_P3, 13))
    expected = naive_srgb((200, 100, 50), colour.PRIMARIES[DISPLAY_P3], srgb_to_linear)
    assert np.abs(read_row(content, COLOUR, "fit", LIMITS).pixels[8, 8].astype(int) - expected).max() <= 2
    assert heif.find_cicp(content[: content.index(b"colrnclx") + 9]) is None


def test_a_bmp_may_have_a_profile():
    pixels = np.tile(np.array([50, 100, 200, 255], np.uint8), (16, 16, 1)).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 124, 16, 16, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    end = struct.pack("<4I", 4, 124 + len(pixels), len(profile()), 0)

    def read_bmp(space):
        content = struct.pack("<HIHHI", 0x4D42, 138 + len(pixels), 0, 0, 138) + header + space + bytes(48) + end
        return read_row(content + pixels + profile(), COLOUR, "fit", LIMITS).pixels[8, 8].astype(int)

    expected = naive_srgb((200, 100, 50), colour.PRIMARIES[DISPLAY_P3], lambda value: value**2.2)
    assert np.abs(read_bmp(struct.pack("<I", 0x4D424544)) - expected).max() <= 1
    assert read_bmp(struct.pack("<I", 0x73524742)).tolist() == [200, 100, 50]


def test_a_gif_may_have_a_profile():
    file = io.BytesIO()
    flat("RGB", (200, 100, 50)).quantize(4).save(file, "GIF")
    content, start = file.getvalue(), file.getvalue().index(b",")
    blocks = [profile()[at : at + 255] for at in range(0, len(profile()), 255)]
    extension = b"!\xff\x0bICCRGBG1012" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    result = read_row(content[:start] + extension + content[start:], COLOUR, "fit", LIMITS)
    expected = naive_srgb((200, 100, 50), colour.PRIMARIES[DISPLAY_P3], lambda value: value**2.2)
    assert result.notes == ()
    assert np.abs(result.pixels[8, 8].astype(int) - expected).max() <= 1
    cut_short = content[:start] + extension[:100]
    assert 0 < len(profiles.find_profile(cut_short)) < len(profile())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("entry", ["index", "space"])
def test_cameras_say_adobe_rgb_in_exif(order, entry):
    exif = Image.Exif()
    exif.endian = order
    if entry == "index":
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    else:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 2
    expected = naive_srgb((200, 100, 50), colour.ADOBE_RGB, lambda value: value ** (563 / 256))
    for format, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("PNG", {})):
        pixel = read(flat("RGB", (200, 100, 50)), format, exif=exif.tobytes(), **options).pixels[8, 8]
        assert np.abs(pixel.astype(int) - expected).max() <= 3
    with_profile = read(flat("RGB", (200, 100, 50)), exif=exif.tobytes(), icc_profile=SRGB_PROFILE)
    assert with_profile.pixels[8, 8].tolist() == [200, 100, 50]


def test_ink_of_a_jpeg_without_the_marker_of_adobe_is_not_inverted():
    ink = np.asarray(flat("RGB", (200, 100, 50)).convert("CMYK"))
    file = io.BytesIO()
    Image.fromarray(255 - ink, "CMYK").save(file, "JPEG", quality=100)  # Pillow inverts what it writes
    content, start = file.getvalue(), file.getvalue().index(b"\xff\xee")
    end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    for jpeg, expected in ((content[:start] + content[end:], [200, 100, 50]), (content, [0, 0, 0])):
        pixel = read_row(jpeg, COLOUR, "fit", LIMITS).pixels[8, 8]
        assert np.abs(pixel.astype(int) - expected).max() <= 3


@pytest.mark.parametrize(("transfer", "signal"), [(colour.PQ, 0.5807), (colour.HLG, 0.75)])
def test_the_white_of_high_dynamic_range_is_white(transfer, signal):
    conversion = colour.find_conversion({}, "RGB", colour.Cicp(BT_2020, transfer))
    level = round(signal * 255)
    image = conversion.apply(Image.fromarray(np.array([[[0] * 3, [level // 2] * 3, [level] * 3]], np.uint8)))
    black, middle, white = np.asarray(image)[0, :, 0].tolist()
    assert black == 0
    assert 30 < middle < 200
    assert white >= 252
