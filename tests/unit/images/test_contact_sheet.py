import numpy as np
import pytest
from random_images import random_image

from service.images.pictures import contact_sheet


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
    return [np.stack([random_image(3, height, width, 10 * row + c) for c in range(columns)]) for row in range(rows)]


def test_every_image_is_on_the_sheet_once_in_rows_and_columns():
    rows = _grid(2, 3)
    sheet = contact_sheet.contact_sheet(rows, ["a", "b"], ["one", "two", "three"])
    corners = [[_find(sheet, _enlarged(image, 2)) for image in row] for row in rows]
    assert all(len(places) == 1 for row in corners for places in row)
    ys, xs = (np.array([[places[0][axis] for places in row] for row in corners]) for axis in (0, 1))
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
    rows = [*_grid(1, 3), random_image(3, 64, 64)[None]]
    sheet = contact_sheet.contact_sheet(rows)
    assert (sheet[contact_sheet.MARGIN + 128 + contact_sheet.GAP :, contact_sheet.MARGIN + 128 :] == 255).all()


@pytest.mark.parametrize(("side", "scale"), [(28, 4), (64, 2), (100, 1), (256, 1)])
def test_small_images_are_enlarged_in_whole_steps(side, scale):
    image = random_image(3, side, side)
    assert len(_find(contact_sheet.contact_sheet([image[None]]), _enlarged(image, scale))) == 1


def test_a_large_sheet_is_not_enlarged_beyond_what_viewers_open():
    sheet = contact_sheet.contact_sheet([np.zeros((50, 64, 64, 3), dtype=np.uint8)] * 30)
    assert sheet.shape[0] * sheet.shape[1] < 1.3 * contact_sheet.MOST_PIXELS
    assert sheet.shape[1] < 50 * 128


def test_grey_images_are_grey_on_the_sheet():
    image = random_image(1, 64, 64)
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
