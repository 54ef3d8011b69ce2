import base64
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.images import contact_sheet, heat_map, png, zip_writer


def _image(channels=3, height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (height, width, channels), dtype=np.uint8)


def _decode(content):
    image = Image.open(BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image)


# PNG


def test_a_colour_image_survives_png_and_base64():
    image = _image()
    np.testing.assert_array_equal(_decode(png.to_png(image)), image)
    np.testing.assert_array_equal(_decode(base64.b64decode(png.to_base64(image), validate=True)), image)


def test_a_grey_image_is_a_grey_png():
    image = _image(channels=1)
    np.testing.assert_array_equal(_decode(png.to_png(image)), image[..., 0])


# Contact sheet


def _find(sheet, image):
    """Where `image` lies on `sheet`: the corners (y, x) of every exact occurrence."""
    height, width, _ = image.shape
    starts = np.argwhere((sheet[: len(sheet) - height + 1, : sheet.shape[1] - width + 1] == image[0, 0]).all(axis=2))
    return [(y, x) for y, x in starts if np.array_equal(sheet[y : y + height, x : x + width], image)]


def _enlarged(image, scale):
    """Every pixel a square of `scale`."""
    height, width, _ = image.shape
    ys, xs = np.mgrid[: height * scale, : width * scale]
    return image[ys // scale, xs // scale]


def _assert_ends_with(captioned, plain):
    """Captions go above and to the left of the images, and into no image."""
    images = plain[contact_sheet.MARGIN :, contact_sheet.MARGIN :]
    np.testing.assert_array_equal(captioned[-images.shape[0] :, -images.shape[1] :], images)


def _grid(rows, columns, height=64, width=64):
    return [np.stack([_image(3, height, width, 10 * row + c) for c in range(columns)]) for row in range(rows)]


def test_every_image_is_on_the_sheet_once_in_rows_and_columns():
    rows = _grid(2, 3)
    sheet = contact_sheet.contact_sheet(rows, ["a", "b"], ["one", "two", "three"])
    corners = [[_find(sheet, _enlarged(image, 2)) for image in row] for row in rows]
    assert all(len(found) == 1 for row in corners for found in row)
    ys, xs = (np.array([[found[0][axis] for found in row] for row in corners]) for axis in (0, 1))
    assert (np.diff(xs, axis=1) > 128).all()  # side by side, with a gap
    assert (np.diff(ys, axis=0) > 128).all()
    assert (np.ptp(xs, axis=0) == 0).all()
    assert (np.ptp(ys, axis=1) == 0).all()


def test_the_sheet_is_white_around_the_images_and_dark_where_its_captions_are():
    rows = _grid(2, 2)
    plain = contact_sheet.contact_sheet(rows)  # margins, gaps and images
    captioned = contact_sheet.contact_sheet(rows, ["upper", "lower"], ["left", "right"])
    assert plain.dtype == np.uint8
    assert (plain[: contact_sheet.MARGIN] == 255).all()
    top, left = (captioned.shape[axis] - plain.shape[axis] for axis in (0, 1))
    _assert_ends_with(captioned, plain)
    upper, lower = captioned[top : top + 138, :left], captioned[top + 138 :, :left]
    headings = captioned[:top]
    for part in (upper, lower, headings[:, left : left + 138], headings[:, left + 138 :]):
        assert part.min() < 100
    assert (headings[:, :left] == 255).all()


def test_a_short_row_leaves_white():
    rows = [*_grid(1, 3), _image(3, 64, 64)[None]]
    sheet = contact_sheet.contact_sheet(rows)
    assert (sheet[contact_sheet.MARGIN + 128 + contact_sheet.GAP :, contact_sheet.MARGIN + 128 :] == 255).all()


@pytest.mark.parametrize(("side", "scale"), [(28, 4), (64, 2), (100, 1), (256, 1)])
def test_small_images_are_enlarged_in_whole_steps(side, scale):
    image = _image(3, side, side)
    assert len(_find(contact_sheet.contact_sheet([image[None]]), _enlarged(image, scale))) == 1


def test_a_large_sheet_is_not_enlarged_beyond_what_viewers_open():
    sheet = contact_sheet.contact_sheet([np.zeros((50, 64, 64, 3), dtype=np.uint8)] * 30)
    assert sheet.shape[0] * sheet.shape[1] < 1.3 * contact_sheet.MOST_PIXELS
    assert sheet.shape[1] < 50 * 128


def test_grey_images_are_grey_on_the_sheet():
    image = _image(1, 64, 64)
    assert len(_find(contact_sheet.contact_sheet([image[None]]), _enlarged(np.repeat(image, 3, axis=2), 2))) == 1


@pytest.mark.parametrize(
    "caption",
    ["", " \n ", "w" * 100_000, "many words " * 1000, "日本語 \x00\x1b \ud800 𝔘", "two\nlines\tand a tab"],
)
def test_any_caption_stays_in_its_place(caption):
    rows = _grid(2, 2)
    sheet = contact_sheet.contact_sheet(rows, [caption, "b"], [caption, "c"])
    plain = contact_sheet.contact_sheet(rows)
    assert (
        sheet.shape[0] - plain.shape[0]
        <= contact_sheet.COLUMN_CAPTION_LINES * contact_sheet.LINE_HEIGHT + contact_sheet.GAP
    )
    assert sheet.shape[1] - plain.shape[1] <= contact_sheet.ROW_CAPTION_WIDTH + contact_sheet.GAP
    _assert_ends_with(sheet, plain)


def test_a_caption_too_many_or_too_few_is_a_mistake():
    for captions in (["a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="zip"):
            contact_sheet.contact_sheet(_grid(2, 2), captions)
        with pytest.raises(ValueError, match="zip"):
            contact_sheet.contact_sheet(_grid(2, 2), (), captions)


# Heat map


def naive_overlay(image, evidence):
    """Bilinear between the centres of the map's cells, flat beyond them, one pixel at a time."""
    height, width, _ = image.shape
    h, w = evidence.shape
    result = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = evidence[top, left] * (1 - u + left) + evidence[top, right] * (u - left)
            lower = evidence[bottom, left] * (1 - u + left) + evidence[bottom, right] * (u - left)
            strength = (upper * (1 - v + top) + lower * (v - top)) / evidence.max()
            place = strength * (len(heat_map.HEAT) - 1)
            stop = min(int(place), len(heat_map.HEAT) - 2)
            colour = heat_map.HEAT[stop] + (place - stop) * (heat_map.HEAT[stop + 1] - heat_map.HEAT[stop])
            alpha = 0.85 * strength
            red, green, blue = np.broadcast_to(image[y, x].astype(float), 3)
            result[y, x] = (1 - alpha) * (0.2126 * red + 0.7152 * green + 0.0722 * blue) + alpha * colour
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlay_equals_the_naive_formula(channels, dtype):
    image = _image(channels, 24, 32)
    evidence = np.random.default_rng(1).gamma(0.5, 7, (3, 4)).astype(dtype)
    found = heat_map.overlays(image, evidence[None])[0]
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, naive_overlay(image, evidence), atol=1.3)  # strength in 1,024 steps, grey in 256


def in_grey(image):
    weights = (0.2126, 0.7152, 0.0722) if image.shape[2] == 3 else (1,)
    return np.repeat((image @ np.array(weights)).round()[..., None], 3, axis=2)


def test_where_there_is_no_evidence_the_image_shows_in_grey():
    image = _image(3, 64, 64)
    evidence = np.zeros((8, 8))
    evidence[6, 1] = 1e-30
    found = heat_map.overlays(image, evidence[None])[0]
    np.testing.assert_array_equal(found[:32], in_grey(image)[:32])
    np.testing.assert_array_equal(found[:, 32:], in_grey(image)[:, 32:])
    hottest = found[50:54, 10:14].astype(int)
    assert (hottest[..., 0] > hottest[..., 2]).all()  # no longer grey: the hottest colour is a yellow


def test_a_map_of_zeros_leaves_the_image_in_grey():
    for image in (_image(1), _image(3)):
        found = heat_map.overlays(image, np.zeros((1, 2, 2), dtype=np.float32))[0]
        np.testing.assert_array_equal(found, in_grey(image))


def test_the_overlay_leaves_its_input_alone():
    image, evidence = _image(3), np.ones((2, 2))
    before = image.copy()
    heat_map.overlays(image, evidence[None])[0][:] = 0
    heat_map.overlays(image, 0 * evidence[None])[:] = 0
    np.testing.assert_array_equal(image, before)


def _lightness(rgb):
    """CIELAB L* of sRGB 0..255."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_the_stronger_the_lighter_in_even_steps():
    lightness = _lightness(heat_map.heat_colours(np.linspace(0, 1, 101)))
    assert (np.diff(lightness) > 0).all()
    straight = np.linspace(lightness[0], lightness[-1], 101)
    np.testing.assert_allclose(lightness, straight, atol=2.5)


# Files


def test_zip_files_come_back_in_order_and_the_same_files_are_the_same_bytes():
    files = {"b.png": png.to_png(_image()), "latents.json": b"{}" * 500, "ä.png": b"\x89PNG"}
    content = zip_writer.zip_files(files)
    assert zip_writer.zip_files(dict(files)) == content
    with zipfile.ZipFile(BytesIO(content)) as archive:  # no clock has a part in it
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == files
        assert archive.namelist() == list(files)
        methods = {info.filename: info.compress_type for info in archive.infolist()}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}
    assert methods == {"b.png": zipfile.ZIP_STORED, "latents.json": zipfile.ZIP_DEFLATED, "ä.png": zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    ("image_id", "stem"),
    [
        ("photo.PNG", "photo"),
        ("v1.5", "v1.5"),
        ("../../etc/passwd", "etc_passwd"),
        ("C:\\images\\a b.jpeg", "C_images_a_b"),
        (".hidden.png", "hidden"),
        ("Größe.tif", "Größe"),
        ("", "image"),
        ("..", "image"),
        ("\ud800\x00", "image"),
        ("x" * 500, "x" * 100),
    ],
)
def test_an_id_becomes_a_plain_file_name(image_id, stem):
    assert zip_writer.file_stem(image_id) == stem
    assert zip_writer.zip_files({zip_writer.file_stem(image_id): b""})
