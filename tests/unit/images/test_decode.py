"""Image files and pixels of every kind, to rows as the encoder takes them."""

import base64
import contextlib
import io
import struct
import zlib

import bodies
import bombs
import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.errors import InvalidInput, MisfitError, ShapeMismatch, TooLarge, UndecodableImage
from service.images.decode import Upload, read_row, read_rows, to_row
from service.images.formats.pages import find_pages
from service.images.limits import Limits

COLOUR = ImageSpec(height=64, width=64, channels=3)
GREY = ImageSpec(height=28, width=28, channels=1)
LIMITS = Limits(1_000_000)


def row(content, spec=COLOUR, resize="fit"):
    return to_row(content, spec, resize, LIMITS)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def flat(mode: str, colour: object, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new(mode, size, colour)


def bmp_with_mask(red: int, green: int, blue: int) -> bytes:
    """A BMP of 32 bits whose header names a mask for alpha, as screenshots have it, and whose alpha is 0."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 64, 64, 1, 32, 3, 4 * 64**2, 0, 0, 0, 0) + masks + bytes(52)
    pixels = bytes([blue, green, red, 0]) * 64**2
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(pixels), 0, 0, 14 + 108) + header + pixels


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_an_image_of_the_right_size_passes_unchanged(images, format):
    assert np.array_equal(row(bodies.encoded(images[0], format)), images[0])


def test_lossless_webp_passes_unchanged(images):
    assert np.array_equal(row(saved(Image.fromarray(images[0]), "WEBP", lossless=True)), images[0])


def test_jpeg_comes_close(images):
    error = np.abs(row(saved(Image.fromarray(images[0]), "JPEG", quality=95)).astype(int) - images[0])
    assert error.mean() < 10


def test_pixels_of_the_right_shape_are_not_even_copied(images):
    assert np.shares_memory(row(images[0]), images[0])
    assert np.array_equal(row(images[0]), images[0])


def test_grey_pixels_may_leave_the_channel_axis_out():
    pixels = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    assert np.array_equal(row(pixels, GREY), pixels[..., None])


def test_exif_turn_is_applied():
    upright = np.zeros((64, 64, 3), dtype=np.uint8)
    upright[:32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    lying = Image.fromarray(np.rot90(upright, 1))
    assert np.array_equal(row(saved(lying, exif=exif)), upright)


def test_transparency_is_laid_on_white():
    image = flat("RGBA", (10, 20, 30, 0))
    image.paste((40, 50, 60, 255), (0, 0, 32, 64))
    pixels = row(saved(image))
    assert (pixels[:, 32:] == 255).all()
    assert (pixels[:, :32] == [40, 50, 60]).all()
    assert (row(saved(flat("LA", (7, 255)))) == 7).all()


@pytest.mark.parametrize(
    "content",
    [
        saved(flat("RGBA", (10, 20, 30, 0))),
        bmp_with_mask(10, 20, 30),
        saved(flat("RGBA", (10, 20, 30, 0)), "TIFF"),
        saved(flat("RGBA", (10, 20, 30, 0)), "WEBP", lossless=True, exact=True),
        np.full((64, 64, 4), [10, 20, 30, 0], dtype=np.uint8),
        np.full((64, 64, 4), [2570, 5140, 7710, 0], dtype=np.uint16) + np.array([0, 0, 32768, 0], np.uint16),
    ],
    ids=["PNG", "BMP", "TIFF", "WebP", "array", "16 bits"],
)
def test_alpha_that_is_0_everywhere_is_unused(content):
    read = read_row(content, COLOUR, "fit", LIMITS)
    assert read.notes == ("unused_alpha",)
    assert (read.pixels[..., :2] == [10, 20]).all()
    palette = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) % 2, (64, 1)), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    read = read_row(saved(palette, transparency=bytes(2)), COLOUR, "fit", LIMITS)
    assert read.notes == ("unused_alpha",)
    assert (read.pixels[0, :2] == [[10, 20, 30], [40, 50, 60]]).all()
    grey = read_row(np.full((64, 64, 2), [7, 0], dtype=np.uint8), COLOUR, "fit", LIMITS)
    assert grey.notes == ("unused_alpha",)
    assert (grey.pixels == 7).all()


def test_transparent_palette_entry_is_laid_on_white():
    image = flat("P", 0)
    image.putpalette([10, 20, 30])
    assert (row(saved(image, transparency=0)) == 255).all()
    assert (row(saved(image))[0, 0] == [10, 20, 30]).all()


def test_sixteen_bit_grey_keeps_its_high_byte():
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    assert np.array_equal(row(saved(Image.fromarray(levels)))[..., 0], (levels >> 8).astype(np.uint8))


def test_bilevel_grey_and_cmyk_become_colours():
    assert (row(saved(flat("1", 1))) == 255).all()
    assert (row(saved(flat("L", 99))) == 99).all()
    assert (row(saved(flat("CMYK", (0, 0, 0, 0)), "TIFF")) == 255).all()


def test_colour_becomes_grey_where_the_bundle_is():
    assert (row(saved(flat("RGB", (255, 255, 255), (28, 28))), GREY) == 255).all()


def test_first_frame_of_an_animation_is_taken():
    frames = [flat("RGB", colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP"):
        animation = saved(frames[0], format, save_all=True, append_images=frames[1:])
        red, _, blue = row(animation)[32, 32]
        assert red > 200 > 50 > blue


@pytest.mark.parametrize("size", [(640, 480), (10, 20), (1, 1), (3000, 300)])
def test_other_sizes_are_resized(size):
    pixels = row(saved(flat("RGB", (50, 100, 150), size)))
    assert pixels.shape == (64, 64, 3)
    assert (pixels == [50, 100, 150]).all()


def test_large_jpeg_is_read_at_a_fraction_and_still_right():
    left_dark = np.zeros((900, 900), dtype=np.uint8)
    left_dark[:, 450:] = 255
    pixels = row(saved(Image.fromarray(left_dark), "JPEG"))
    assert pixels[:, :30].max() < 20
    assert pixels[:, 34:].min() > 235


def test_pixels_of_another_size_are_resized_like_files(images):
    wide = np.repeat(images[0], 2, axis=1)
    assert np.array_equal(row(wide), row(bodies.encoded(wide)))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pixels_of_other_channels_are_converted(channels):
    pixels = np.full((64, 64, channels), 255, dtype=np.uint8)
    assert (row(pixels) == 255).all()


def test_resize_reject_refuses_another_size():
    with pytest.raises(ShapeMismatch, match="65 x 64"):
        row(saved(flat("RGB", "red", (65, 64))), resize="reject")
    assert row(saved(flat("RGB", "red")), resize="reject").shape == (64, 64, 3)


def test_a_huge_header_is_refused_before_decoding():
    with pytest.raises(TooLarge, match="20000 x 20000"):
        row(huge_png_header())


def huge_png_header() -> bytes:
    """A PNG that announces 20,000 x 20,000 pixels, and holds none of them."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is text",
        b"http://example.com/image.png",
        b"\x89PNG\r\n\x1a\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"P6 1 1 255 abc",  # a format that Pillow reads and we do not
    ],
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(UndecodableImage) as caught:
        row(content)
    assert caught.value.hint


def test_every_truncation_is_refused_with_its_own_error(images):
    for format in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        whole = saved(Image.fromarray(images[0]), format)
        for length in range(0, len(whole) - 40, max(1, len(whole) // 25)):
            with pytest.raises(InvalidInput):
                row(whole[:length])


def test_flipped_bytes_raise_nothing_but_our_own_errors(images):
    rng = np.random.default_rng(1)
    for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = np.frombuffer(saved(Image.fromarray(images[0]), format), dtype=np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 5)] = rng.integers(0, 256, 5)
            with contextlib.suppress(InvalidInput):
                assert row(damaged.tobytes()).shape == (64, 64, 3)


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("depth", [8, 16])
def test_what_is_damaged_beside_the_pixels_of_a_png_does_no_harm(images, place, depth):
    file, end = bodies.encoded(images[0]), bombs.png_chunk(b"IEND", b"")
    if depth == 16:
        file = imagecodecs.png_encode(images[0].astype(np.uint16) * 257)
    text = bombs.png_chunk(b"tEXt", b"Comment\0a text")
    broken = {
        "checksum": text[:-1] + bytes([text[-1] ^ 1]),
        "EXIF": bombs.png_chunk(b"eXIf", b"garbage"),
        "text of 2 MB": bombs.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2_000_000))),
        "gamma": bombs.png_chunk(b"gAMA", b"\0"),
        "profile": bombs.png_chunk(b"iCCP", b"name\0\0" + zlib.compress(b"no profile")),
    }
    for what, chunk in broken.items():
        spoiled = file[:33] + chunk + file[33:] if place == "before" else file.removesuffix(end) + chunk + end
        assert np.array_equal(row(spoiled), images[0]), what
    with pytest.raises(UndecodableImage):
        row(file.replace(b"IDAT", b"IDAT\0", 1))


def test_damaged_exif_turns_nothing(images):
    whole = saved(Image.fromarray(images[0]), "JPEG", exif=b"Exif\0\0garbage")
    assert np.array_equal(row(whole), row(saved(Image.fromarray(images[0]), "JPEG")))


def test_several_frames_are_noted_and_can_be_chosen():
    frames = [flat("RGB", colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        file = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert read_row(file, COLOUR, "fit", LIMITS).notes == ("pages",), format
        second = read_row(file, COLOUR, "fit", LIMITS, page=find_pages(file, 1)[1])
        assert second.notes == ()
        assert second.pixels[32, 32, 2] > 200 > 50 > second.pixels[32, 32, 0]
    assert read_row(saved(frames[0], "GIF"), COLOUR, "fit", LIMITS).notes == ()


def test_avif_and_heic_are_read():
    pillow_heif.register_heif_opener()
    half = np.zeros((64, 64, 3), dtype=np.uint8)
    half[:32] = [250, 200, 150]
    for format in ("AVIF", "HEIF"):
        error = np.abs(row(saved(Image.fromarray(half), format, quality=95)).astype(int) - half)
        assert error.mean() < 3, format


def test_heic_says_what_is_missing(monkeypatch, images):
    pillow_heif.register_heif_opener()
    file = saved(Image.fromarray(images[0]), "HEIF")
    monkeypatch.setattr("service.images.formats.heif._register_heif", lambda: False)
    with pytest.raises(UndecodableImage, match="HEIC") as caught:
        row(file)
    assert "pi-heif" in caught.value.hint


def test_one_bad_upload_among_good_ones_is_left_out_alone(images):
    contents = [images[0], b"broken", images[2]]
    rows = read_rows([Upload(str(i), lambda c=c: c) for i, c in enumerate(contents)], COLOUR, "fit", LIMITS)
    assert np.array_equal(rows.pixels, images[[0, 2]])
    assert list(rows.errors) == [1]
    assert isinstance(rows.errors[1], UndecodableImage)


def test_an_upload_that_cannot_be_read_is_left_out_too(images):
    def fail():
        raise UndecodableImage("gone")

    rows = read_rows([Upload("a", fail), Upload("b", lambda: images[0])], COLOUR, "fit", LIMITS)
    assert len(rows.pixels) == 1
    assert isinstance(rows.errors[0], MisfitError)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(("orientation", "shown"), [(1, (700, 300)), (6, (300, 700))])
def test_sizes_are_those_of_the_files_as_they_are_turned(format, orientation, shown):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.new("RGB", (700, 300)), format, exif=exif)
    rows = read_rows([Upload("a", lambda: b"broken"), Upload("b", lambda: content)], COLOUR, "fit", LIMITS)
    assert rows.sizes.tolist() == [list(shown)]


def test_pixels_have_a_size_as_well():
    pixels = np.zeros((20, 30), np.uint8)
    assert read_rows([Upload("a", lambda: pixels)], COLOUR, "fit", LIMITS).sizes.tolist() == [[30, 20]]


def test_a_jpeg_with_arithmetic_coding_is_read():
    """Written by libjpeg-turbo, of the levels 0, 3, 6, ... row by row: few programs write such files."""
    file = base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsK"
        "DAkKCgr/yQALCAAIAAgBAREA/8wABgAQEAX/2gAIAQEAAD8A/wDYzcj4E9CFnEQjJ6ZvPFDA/9k="
    )
    levels = to_row(file, ImageSpec(height=8, width=8, channels=1), "fit", LIMITS)[..., 0]
    assert np.abs(levels.astype(int) - np.arange(64).reshape(8, 8) * 3).max() <= 2
