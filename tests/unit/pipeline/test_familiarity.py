"""The foreign check in the company of a batch: what is said of the whole, and what a context carries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import exact
import numpy as np
import pytest

from service.api.options import FitOptions, ScoreOptions
from service.api.requests import ImagesRequest
from service.api.validation import read_contexts
from service.bundle import store
from service.errors import InvalidInput
from service.images.decode import Upload
from service.inference.local import LocalNetworks
from service.pipeline.pipeline import Pipeline
from service.settings import Settings

EXACT = Path(__file__).parents[2] / "data" / "exact_bundle"
COUNT = 30


@pytest.fixture(scope="module")
def pipeline():
    bundle = store.load(EXACT)
    familiarity = bundle.population.familiarity
    assert familiarity is not None
    # As wide a range of errors as that of a trained model.
    wide = replace(familiarity, median=familiarity.high / 4)
    bundle = replace(bundle, population=replace(bundle.population, familiarity=wide))
    return Pipeline(bundle, LocalNetworks(bundle), Settings())


def draw(grain: float, seed: int = 3) -> np.ndarray:
    """Return pictures that the model knows, with grain: the root of their reconstruction error, where it is large."""
    random = np.random.default_rng(seed)
    noise = np.round(grain * random.choice([-1, 1], (COUNT, *exact.IMAGE_SHAPE)))
    return exact.pictures(exact.random_latents(random, COUNT), noise.astype(np.int64))


@pytest.fixture(scope="module")
def grain(pipeline):
    """Return a function to the grain whose error is so many times the limit."""
    limit = pipeline.bundle.population.familiarity.limit
    return lambda times: float(np.sqrt(times * limit))


def request_of(pixels, options=None, contexts=(), reference=None):
    def uploads(images):
        return [Upload(f"{i}", lambda c=c: c) for i, c in enumerate(images)]

    own = None if reference is None else uploads(reference)
    return ImagesRequest(uploads(pixels), own, contexts, options or ScoreOptions())


async def test_a_batch_that_differs_as_a_whole_gets_one_warning_and_is_ranked(pipeline, grain):
    response = (await pipeline.score(request_of(draw(grain(2))))).whole()
    assert not any(item.is_foreign for item in response.items)
    warnings = [warning for warning in response.context.warnings if "not what this model was trained on" in warning]
    assert len(warnings) == 1
    assert f"These {COUNT} images" in warnings[0]
    assert "in all of them alike" in warnings[0]
    assert response.context.reliability == "low"
    assert len({item.outlier_score for item in response.items}) == COUNT


async def test_half_of_a_batch_gets_the_same(pipeline, grain):
    pixels = np.where(np.arange(COUNT)[:, None, None, None] < COUNT // 2, draw(grain(2)), draw(0))
    response = (await pipeline.score(request_of(pixels))).whole()
    assert not any(item.is_foreign for item in response.items)
    assert response.context.warnings[0].startswith(f"{COUNT // 2} of these {COUNT} images")


async def test_one_of_them_is_foreign_among_others(pipeline, grain):
    pixels = draw(0)
    pixels[4] = draw(grain(2))[4]
    response = (await pipeline.score(request_of(pixels))).whole()
    assert [item.index for item in response.items if item.is_foreign] == [4]
    assert not any("trained on" in warning for warning in response.context.warnings)


async def test_where_all_are_foreign_it_says_so_once_and_ranks_none(pipeline):
    random = np.random.default_rng(0).integers(0, 256, (COUNT, *exact.IMAGE_SHAPE), dtype=np.uint8)
    response = (await pipeline.score(request_of(random))).whole()
    assert all(item.is_foreign for item in response.items)
    assert len({item.outlier_score for item in response.items}) == 1
    (warning,) = response.context.warnings
    assert f"none of these {COUNT} images is one" in warning
    assert pipeline.bundle.manifest.trained_on in warning
    assert "misfit learn" in warning
    assert response.context.reliability == "low"
    with pytest.raises(InvalidInput, match=f"All {COUNT} images are unlike anything") as refused:
        await pipeline.fit(request_of(random, FitOptions()))
    assert "misfit learn" in refused.value.hint


async def test_mostly_foreign_images_get_one_warning_as_well(pipeline, grain):
    pixels = draw(grain(3))
    pixels[:20] = np.random.default_rng(0).integers(0, 256, (20, *exact.IMAGE_SHAPE), dtype=np.uint8)
    response = (await pipeline.score(request_of(pixels))).whole()
    assert [item.index for item in response.items if item.is_foreign] == list(range(20))
    about = [warning for warning in response.context.warnings if pipeline.bundle.manifest.trained_on in warning]
    assert len(about) == 1
    assert f"20 of these {COUNT} images are not" in about[0]


async def test_a_context_carries_its_limit(pipeline, grain):
    usual, other = draw(grain(2)), draw(grain(2), seed=5)
    fitted = await pipeline.fit(request_of(usual, FitOptions()))
    assert fitted.context.foreign_limit > 1
    (context,) = read_contexts(json.loads(fitted.model_dump_json())["context"])
    by_context = (await pipeline.score(request_of(other[:3], contexts=[context]))).whole()
    by_reference = (await pipeline.score(request_of(other[:3], reference=usual))).whole()
    assert [item.is_foreign for item in by_context.items] == [False] * 3
    assert by_context.items == by_reference.items
    plain = await pipeline.fit(request_of(draw(0), FitOptions()))
    assert "foreign_limit" not in plain.model_dump()["context"]
    (context,) = read_contexts(json.loads(plain.model_dump_json())["context"])
    strict = (await pipeline.score(request_of(other, contexts=[context]))).whole()
    assert all(item.is_foreign for item in strict.items)


async def test_the_description_says_what_the_model_knows_and_how_it_draws(pipeline):
    described = pipeline.describe("CPU")
    assert described.trained_on == pipeline.bundle.manifest.trained_on
    assert described.remarks == []
    poor = {"reconstruction_nll": 9.0, "perfect_nll": 0.0, "mean_image_nll": 10.0, "ssim": 0.3, "live_latents": 5}
    bundle = pipeline.bundle
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"metrics": poor}))
    described = replace(pipeline, bundle=bundle).describe("CPU")
    assert "0.300" in described.drawing
    assert any("explain only 10%" in remark for remark in described.remarks)
