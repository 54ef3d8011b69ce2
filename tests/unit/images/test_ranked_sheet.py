from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from random_images import random_image

from service.images.pictures import captions, ranked_sheet
from service.images.pictures.ranked_sheet import Tile, ranked_sheet_png

FONT = captions.load_font()


def drawn(*tiles, title=("title",)) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(ranked_sheet_png(title, tiles))))


def tile(image, **fields) -> Tile:
    return Tile(**{"image": image, "id": "a.png", "rank_text": "rank 1", "reason": "fits", "is_marked": False} | fields)


def places_of(sheet, image):
    """Where `image`, each pixel a square of 2, lies on the sheet: corners (y, x)."""
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    height, width, _ = large.shape
    starts = np.argwhere((sheet[: len(sheet) - height + 1, : sheet.shape[1] - width + 1] == large[0, 0]).all(axis=2))
    return [(y, x) for y, x in starts if np.array_equal(sheet[y : y + height, x : x + width], large)]


def test_every_image_is_there_once_in_rows_from_the_left():
    images = [random_image(3, 64, 64, seed) for seed in range(12)]
    sheet = drawn(*map(tile, images))
    places = [places_of(sheet, image) for image in images]
    assert all(len(place) == 1 for place in places)
    assert [place[0] for place in places] == sorted(place[0] for place in places)
    assert len({y for ((y, _),) in places}) == 2


def test_flagged_images_alone_are_framed():
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    plain, marked = drawn(tile(image)), drawn(tile(image, is_marked=True))
    assert not (plain == captions.WARNING_INK).all(axis=2).any()
    assert (marked == captions.WARNING_INK).all(axis=2).sum() > 4 * 128


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3), (300, 300, 3), (100, 400, 3), (1, 900, 3)])
def test_images_of_any_size_fit_their_tile(shape):
    sheet = drawn(tile(np.zeros(shape, dtype=np.uint8)), title=())
    dark = np.argwhere((sheet == 0).all(axis=2))
    assert np.ptp(dark, axis=0).max() < ranked_sheet.SIDE


@pytest.mark.parametrize("text", ["", "w" * 100_000, "many words " * 1000, "日本語 \x00\x1b \ud800 𝔘", "a\nb"])
def test_no_text_makes_a_tile_larger_than_is_counted(text):
    image = random_image(3, 64, 64)
    tiles = [tile(image, id=text, reason=text)] * 20
    sheet = drawn(*tiles, title=())
    assert sheet.shape[0] * sheet.shape[1] < 1.1 * 20 * ranked_sheet.MOST_TILE_PIXELS


@pytest.mark.parametrize("name", ["a.png", "folder/" * 3 + "1.png", "folder/" * 300 + "1.png", "i" * 5000, "W" * 99])
def test_a_long_name_shows_its_beginning_and_its_end(name):
    lines = captions.wrap_name(name, FONT, 150)
    assert 1 <= len(lines) <= 2
    assert all(FONT.getlength(line) <= 150 for line in lines)
    assert name.startswith(lines[0])
    assert name.endswith(lines[-1].removeprefix("…"))
    if "…" not in lines[-1]:
        assert "".join(lines) == name
