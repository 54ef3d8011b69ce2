"""Contact sheets of scores and reasons, and answers where nothing is wrong with the batch."""

import zipfile
from io import BytesIO
from pathlib import Path

import exact
import numpy as np
import pytest
from PIL import Image

from service.api.options import SHEET_IMAGES, EditOptions, ExplainOptions, ScoreOptions, ScoreSheetOptions
from service.api.requests import ImagesRequest
from service.bundle import store
from service.errors import InvalidOption
from service.images.decode import Upload
from service.images.pictures import contact_sheet, ranked_sheet
from service.inference.local import LocalNetworks
from service.pipeline.explain import score_sheet
from service.pipeline.pipeline import Pipeline
from service.settings import Settings

EXACT = Path(__file__).parents[2] / "data" / "exact_bundle"
ODD, COUNT = 5, 40


@pytest.fixture(scope="module")
def pipeline():
    bundle = store.load(EXACT)
    return Pipeline(bundle, LocalNetworks(bundle), Settings())


@pytest.fixture(scope="module")
def pixels():
    """Ordinary images, but for one whose angle and depth are far off."""
    latents = exact.random_latents(np.random.default_rng(3), COUNT) / 3
    latents[ODD, [2, 4]] = 3
    return exact.pictures(latents, np.zeros((COUNT, *exact.IMAGE_SHAPE), dtype=np.int64))


def request_of(pixels, options, broken=()):
    contents = [b"broken" if i in broken else image for i, image in enumerate(pixels)]
    return ImagesRequest([Upload(f"{i}.png", lambda c=c: c) for i, c in enumerate(contents)], None, (), options)


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(png)).size


@pytest.mark.parametrize("kept", [True, False])
async def test_the_sheet_of_scores_has_every_usable_image_by_rank(pipeline, pixels, monkeypatch, kept):
    if not kept:
        monkeypatch.setattr("service.pipeline.batch_scorer.MOST_KEPT", 0)
    request = request_of(pixels, ScoreSheetOptions(attributions="all"), broken=(0, 7))
    sheet = await pipeline.score_sheet(request)
    items = (await pipeline.score(request)).whole().items
    usable = [item for item in items if item.status == "ok"]
    ranked = sorted(usable, key=lambda item: item.rank)
    tiles = [sheet._tile(place) for place in range(len(sheet.rows))]
    assert [tile.id for tile in tiles] == [item.id for item in ranked]
    assert [tile.reason for tile in tiles] == [item.reason for item in ranked]
    assert [tile.is_marked for tile in tiles] == [item.is_outlier for item in ranked]
    for tile, item in zip(tiles, ranked, strict=True):
        np.testing.assert_array_equal(tile.image, pixels[item.index])
        assert tile.rank_text.startswith(f"rank {item.rank}")
        assert ("flagged" in tile.rank_text) == item.is_outlier
    assert tiles[0].id == f"{ODD}.png"
    title = " ".join(sheet._title())
    assert f"{COUNT} images, 1 flagged" in title
    errors = [item.error for item in items if item.status == "error"]
    assert f"could not be used: 2. '0.png': {errors[0]} '7.png': {errors[1]}" in title
    assert all(error.hint in str(error) != error.hint for error in errors)
    assert size_of(sheet.as_sheet())[0] > ranked_sheet.COLUMNS * ranked_sheet.SIDE


async def test_the_sheet_of_scores_has_pages(pipeline, pixels, monkeypatch):
    monkeypatch.setattr(score_sheet, "SHEET_IMAGES", 16)
    pages = [await pipeline.score_sheet(request_of(pixels, ScoreSheetOptions(page=page))) for page in (1, 2, 3)]
    assert [len(page.rows) for page in pages] == [16, 16, 8]
    ranks = [page.batch.scores.rank[row] for page in pages for row in page.rows]
    assert ranks == list(range(1, COUNT + 1))
    assert "Page 1 of 3; the next one is page=2." in pages[0]._title()
    assert pages[2]._title()[-1] == "Page 3 of 3."
    with pytest.raises(InvalidOption, match="page is 4; 40 images make 3 pages"):
        await pipeline.score_sheet(request_of(pixels, ScoreSheetOptions(page=4)))
    assert SHEET_IMAGES == 200


async def test_reasons_are_found_for_the_page_alone_and_are_the_same(pipeline, pixels):
    items = (await pipeline.score(request_of(pixels, ScoreOptions(attributions="all", threshold=0.0)))).whole().items
    sheet = await pipeline.score_sheet(request_of(pixels, ScoreSheetOptions(threshold=0.0)))
    reasons = {sheet.batch.images.ids[row]: reason for row, reason in zip(sheet.rows, sheet.reasons, strict=True)}
    assert reasons == {item.id: item.reason for item in items}


async def test_the_sheet_of_reasons_has_a_column_for_each_latent_of_a_minimal_set(pipeline, pixels, monkeypatch):
    drawn = []
    draw = contact_sheet.sheet_png
    monkeypatch.setattr(contact_sheet, "sheet_png", lambda *args: drawn.append(args) or draw(*args))
    explanation = await pipeline.explain(request_of(pixels, ExplainOptions(top=4)))
    (item,) = [item for item in explanation.as_json().whole().items if item.is_outlier]
    assert sorted(item.minimal_set) == ["angle", "depth"]
    assert {heat_map.latent for heat_map in item.heat_maps[:2]} == {"angle", "depth"}
    explanation.as_sheet()
    (((row,), (caption,), columns),) = drawn
    assert columns == ("as sent", "angle", "depth")
    assert caption == f"1. {ODD}.png: {item.reason}"
    np.testing.assert_array_equal(row[0], pixels[ODD])
    assert (row[1:] != contact_sheet.WHITE).any(axis=(1, 2, 3)).all()


async def test_images_that_fit_have_no_heat_maps_on_the_sheet(pipeline, pixels, monkeypatch):
    drawn = []
    monkeypatch.setattr(contact_sheet, "sheet_png", lambda *args: drawn.append(args) or b"")
    explanation = await pipeline.explain(request_of(pixels, ExplainOptions(heat_maps="all")))
    explanation.as_sheet()
    ((rows, _, _),) = drawn
    assert len(rows) == COUNT
    assert all((row[1:] == contact_sheet.WHITE).all() for row in rows[1:])


async def test_a_sheet_of_reasons_has_no_more_rows_than_viewers_open(pipeline, pixels, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MOST_PIXELS", 20_000)
    explanation = await pipeline.explain(request_of(pixels, ExplainOptions(heat_maps="all")))
    width, height = size_of(explanation.as_sheet())
    assert width * height < 150_000  # the captions come on top


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 1.0}, "None of the 40 images is flagged"),
        ({"heat_maps": "none"}, "1 of the 40 images is flagged, and no heat map was drawn"),
    ],
)
async def test_where_there_are_no_heat_maps_the_sheet_says_why(pipeline, pixels, options, words):
    explanation = await pipeline.explain(request_of(pixels, ExplainOptions(**options)))
    assert words in explanation._say_why_nothing_is_shown()
    assert size_of(explanation.as_sheet())[0] == contact_sheet.NOTE_WIDTH + 2 * contact_sheet.MARGIN


@pytest.mark.parametrize("edit", ["counterfactual", "project"])
async def test_an_edit_of_a_batch_without_outliers_has_no_pictures(pipeline, pixels, edit):
    result = await pipeline.edit(request_of(pixels, EditOptions(threshold=1.0, edit=edit)))
    answer = result.as_json().whole()
    assert answer.pictures == []
    assert answer.context.warnings[-1].startswith("None of the 40 images is flagged, so there is nothing to edit.")
    assert size_of(result.as_sheet())[0] == contact_sheet.NOTE_WIDTH + 2 * contact_sheet.MARGIN
    with zipfile.ZipFile(BytesIO(b"".join(result.as_zip()))) as archive:
        assert archive.namelist() == ["answer.json"]


async def test_an_edit_of_no_named_image_has_no_pictures(pipeline, pixels):
    result = await pipeline.edit(request_of(pixels, EditOptions(which=[])))
    assert result.as_json().whole().context.warnings[-1].startswith("No image is named")
