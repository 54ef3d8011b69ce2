"""A bundle without a decoder, served in this process: it scores, explains, and shows images instead of drawings."""

import json
from pathlib import Path

import exact
import numpy as np
import pytest

from service.api.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    SampleOptions,
    ScoreOptions,
    TraverseOptions,
)
from service.api.requests import ImagesRequest
from service.api.validation import read_contexts
from service.bundle import store
from service.core.detect.standardize import PopulationUnits
from service.errors import InvalidInput
from service.images.decode import Upload
from service.inference.local import LocalNetworks
from service.pipeline.pipeline import Pipeline
from service.settings import Settings

EXACT = Path(__file__).parents[2] / "data" / "exact_bundle"
DRAWING = {
    "edit": EditOptions(which="all"),
    "traverse": TraverseOptions(),
    "interpolate": InterpolateOptions(start=0, end=1),
    "sample": SampleOptions(),
}


def without(tmp_path_factory, *names):
    """Write the exact bundle again, without those files."""
    bundle = store.load(EXACT)
    graphs = {name: (EXACT / name).read_bytes() for name in bundle.manifest.files if name.endswith(".onnx")}
    kept = {name: content for name, content in graphs.items() if name not in names}
    return store.write(tmp_path_factory.mktemp("bundle") / "b", bundle.manifest, kept, bundle.population)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return without(tmp_path_factory, "decoder.onnx")


@pytest.fixture(scope="module")
def pipeline(bundle):
    return Pipeline(bundle, LocalNetworks(bundle), Settings())


@pytest.fixture(scope="module")
def whole():
    bundle = store.load(EXACT)
    return Pipeline(bundle, LocalNetworks(bundle), Settings())


@pytest.fixture(scope="module")
def pixels():
    random = np.random.default_rng(3)
    latents = exact.random_latents(random, 40)
    latents[5, 2] = 9
    return exact.pictures(latents, np.zeros((40, *exact.IMAGE_SHAPE), dtype=np.int64))


def request_of(pixels, options, contexts=()):
    return ImagesRequest([Upload(f"{i}", lambda c=c: c) for i, c in enumerate(pixels)], None, contexts, options)


def scores_of(response):
    return [item.outlier_score for item in response.items]


async def test_the_scores_are_those_of_the_whole_model_unchecked(pipeline, whole, pixels):
    response = (await pipeline.score(request_of(pixels, ScoreOptions()))).whole()
    unchecked = (await whole.score(request_of(pixels, ScoreOptions(foreign="off")))).whole()
    assert scores_of(response) == scores_of(unchecked)
    assert all(item.is_foreign is None for item in response.items)
    assert response.context.warnings[-1] == (
        "This bundle cannot tell images that are unlike anything the model has seen: it has no decoder.onnx."
    )
    quiet = (await pipeline.score(request_of(pixels, ScoreOptions(foreign="off")))).whole()
    assert not any("unlike anything" in warning for warning in quiet.context.warnings)


async def test_it_encodes_and_fits_and_explains_against_what_it_fitted(pipeline, whole, pixels):
    encoded = (await pipeline.encode(request_of(pixels, EncodeOptions()))).whole()
    assert encoded.items == (await whole.encode(request_of(pixels, EncodeOptions()))).whole().items
    fitted = await pipeline.fit(request_of(pixels[6:], FitOptions(estimator="robust")))
    (context,) = read_contexts(json.loads(fitted.model_dump_json())["context"])
    explained = await pipeline.explain(request_of(pixels[:6], ExplainOptions(heat_maps="all"), [context]))
    items = explained.as_json().whole().items
    assert items[5].rank == 1
    assert items[5].outlier_probability == max(item.outlier_probability for item in items)
    # Compared with a typical image of the batch: the context's centre cannot be drawn.
    assert all(item.heat_maps for item in items)


async def test_heat_maps_need_their_graph_only(tmp_path_factory, pixels):
    bundle = without(tmp_path_factory, "decoder.onnx", "saliency.onnx")
    pipeline = Pipeline(bundle, LocalNetworks(bundle), Settings())
    explained = (await pipeline.explain(request_of(pixels, ExplainOptions()))).as_json().whole()
    assert not any(item.heat_maps for item in explained.items)
    assert any("no heat maps" in warning for warning in explained.context.warnings)


@pytest.mark.parametrize("name", DRAWING)
async def test_where_nothing_can_be_drawn_the_nearest_images_are_shown(pipeline, bundle, pixels, name):
    answer = (await getattr(pipeline, name)(request_of(pixels, DRAWING[name]))).as_json().whole()
    assert any("cannot draw" in warning for warning in answer.context.warnings)
    scores = (await pipeline.score(request_of(pixels, ScoreOptions()))).whole().items
    fitting = [row for row, item in enumerate(scores) if not item.is_outlier]
    items = (await pipeline.encode(request_of(pixels, EncodeOptions()))).whole().items
    units = PopulationUnits.of(bundle.population)
    points = units.points(np.array([item.mean for item in items]))
    for picture in answer.pictures:
        assert picture.image is not None
        aim = units.points(np.array([picture.latents]))[0]
        order = sorted(fitting, key=lambda row: np.linalg.norm(points[row] - aim))
        own = picture.index if name == "edit" else None
        assert picture.exemplar == str(next(row for row in order if row != own))


async def test_without_images_there_is_nothing_to_show(pipeline, pixels):
    fitted = await pipeline.fit(request_of(pixels, FitOptions()))
    contexts = read_contexts(json.loads(fitted.model_dump_json())["context"])
    with pytest.raises(InvalidInput, match="leave nothing to show"):
        await pipeline.sample(request_of([], SampleOptions(method="gaussian"), contexts))


async def test_latents_cannot_be_decoded(pipeline):
    with pytest.raises(InvalidInput, match="has no decoder"):
        await pipeline.decode(np.zeros((1, exact.LATENTS)))


def test_the_description_says_so(pipeline, whole):
    assert pipeline.describe("none").capabilities.model_dump() == {
        "can_decode": False,
        "has_saliency": True,
        "has_uncertainty": True,
    }
    assert all(whole.describe("none").capabilities.model_dump().values())
