"""The flow from uploads to scores, with networks that are plain functions."""

import asyncio
import base64
import json
import zipfile
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import get_args

import bodies
import numpy as np
import pytest
import tifffile
from fakes import FakeNetworks
from PIL import Image

from service.api.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    SampleOptions,
    ScoreOptions,
    TraverseOptions,
    most_pictures,
)
from service.api.requests import ImagesRequest
from service.api.validation import read_contexts
from service.core.detect import scoring
from service.core.types import EstimatorName
from service.errors import (
    InferenceUnavailable,
    InvalidOption,
    MisfitError,
    ShapeMismatch,
    UndecodableImage,
    UnknownLatent,
)
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.reading import Reading
from service.pipeline import batch_scorer, chunked_inference, chunked_response
from service.pipeline import pipeline as pipelines
from service.pipeline.edit.edit_result import EditResult
from service.pipeline.pipeline import Pipeline
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.grpc.converters import METHODS


class CountingNetworks(FakeNetworks):
    """Latents that tell which image they came from, pictures that give them back; counts the calls of encode."""

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim
        self.calls: list[int] = []
        self.running = self.most_running = 0

    async def encode(self, images):
        self.calls.append(len(images))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await asyncio.sleep(0.001)
        self.running -= 1
        flat = images.reshape(len(images), -1)[:, : self.latent_dim].astype(np.float32)
        return np.stack([flat / 64 - 2, np.full_like(flat, -4)], axis=1)

    async def decode(self, latents):
        pixels = np.full((len(latents), 64 * 64 * 3), 128, dtype=np.uint8)
        pixels[:, : self.latent_dim] = np.clip((latents + 2) * 64, 0, 255).round()
        return pixels.reshape(-1, 64, 64, 3)

    async def saliency(self, images):
        return np.tile(np.eye(4, dtype=np.float32), (len(images), self.latent_dim, 1, 1))


class UnavailableNetworks(CountingNetworks):
    async def encode(self, images):
        raise InferenceUnavailable("gone")


@pytest.fixture
def networks(served_bundle):
    return CountingNetworks(served_bundle.manifest.latent_dim)


class WholePipeline(Pipeline):
    """Its answers are whole: how they come in pieces is a matter of test_pieces."""

    async def score(self, request):
        return (await super().score(request)).whole()

    async def encode(self, request):
        return (await super().encode(request)).whole()


@pytest.fixture
def pipeline(served_bundle, networks):
    return WholePipeline(served_bundle, networks, Settings())


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(96, 160, (count, 64, 64, 3), dtype=np.uint8)


def uploads(contents) -> list[Upload]:
    return [Upload(f"{i}.png", lambda content=content: content) for i, content in enumerate(contents)]


def request_of(contents, reference=None, contexts=(), options_type=ScoreOptions, **options) -> ImagesRequest:
    # Noise is foreign to every model: what is tested here is the flow.
    given = options_type(**({"foreign": "off"} | options))
    return ImagesRequest(uploads(contents), None if reference is None else uploads(reference), contexts, given)


async def test_items_come_in_order_with_ranks_from_one(pipeline):
    response = await pipeline.score(request_of(noise(20)))
    assert [item.index for item in response.items] == list(range(20))
    assert [item.id for item in response.items] == [f"{i}.png" for i in range(20)]
    assert sorted(item.rank for item in response.items) == list(range(1, 21))
    best = min(response.items, key=lambda item: item.rank)
    assert best.outlier_score == max(item.outlier_score for item in response.items)
    assert response.context.source == "batch"


async def test_a_failed_item_has_an_error_and_the_others_none(pipeline):
    contents = list(noise(12))
    contents[3] = b"broken"
    response = await pipeline.score(request_of(contents))
    items = json.loads(response.model_dump_json(exclude_unset=True))["items"]
    assert items[3]["status"] == "error"
    assert items[3]["error"].keys() == {"code", "message", "hint"}
    assert items[3]["error"]["code"] == "undecodable_image"
    assert items[3]["outlier_score"] is None
    assert all("error" not in item and item["status"] == "ok" for item in items[:3] + items[4:])
    whole = await pipeline.score(request_of([c for c in contents if not isinstance(c, bytes)]))
    assert [i.outlier_score for i in whole.items] == [i.outlier_score for i in response.items if i.status == "ok"]


LIKENESS = {"nearest": 3, "duplicates": "groups"}


def with_copies() -> list:
    """Twenty images: 2, 7 and 19 are copies of one, 4 of 11, and 5 is broken."""
    contents = list(noise(20))
    contents[7] = contents[19] = contents[2]
    contents[11] = contents[4]
    contents[5] = b"broken"
    return contents


async def test_nearest_and_duplicates_come_where_asked_for(pipeline):
    response = await pipeline.score(request_of(with_copies(), **LIKENESS))
    assert response.duplicates == [[2, 7, 19], [4, 11]]
    items = response.items
    assert items[5].nearest is None
    assert [(each.id, each.index) for each in items[19].nearest[:2]] == [("2.png", 2), ("7.png", 7)]
    assert items[4].nearest[0].distance == 0 < items[4].nearest[1].distance
    for item in items[:5] + items[6:]:
        distances = [each.distance for each in item.nearest]
        assert len(distances) == 3
        assert distances == sorted(distances)
        assert not {each.index for each in item.nearest} & {item.index, 5}
    plain = await pipeline.score(request_of(with_copies()))
    assert "nearest" not in plain.model_dump_json(exclude_unset=True)
    assert "duplicates" not in plain.model_dump_json(exclude_unset=True)
    assert json.loads(plain.model_dump_json(exclude_unset=True)) == json.loads(
        response.model_dump_json(exclude_unset=True, exclude={"duplicates": True, "items": {"__all__": {"nearest"}}})
    )


async def test_distances_are_in_population_units(pipeline, served_bundle):
    contents = noise(12)
    encoded = await pipeline.encode(ImagesRequest(uploads(contents), None, (), EncodeOptions()))
    means, population = np.array([item.mean for item in encoded.items]), served_bundle.population
    live = population.live_dims
    points = means[:, live] / np.sqrt(np.diag(population.covariance)[live])
    response = await pipeline.score(request_of(contents, nearest=10))
    for item in response.items:
        expected = np.sort(np.linalg.norm(points - points[item.index], axis=1))[1:11]
        np.testing.assert_allclose([each.distance for each in item.nearest], expected, rtol=1e-6)


async def test_one_image_has_no_neighbours_and_an_option_may_come_alone(pipeline):
    alone = await pipeline.score(request_of(noise(1), **LIKENESS))
    assert alone.items[0].nearest == alone.duplicates == []
    assert (await pipeline.score(request_of(with_copies(), nearest=1))).duplicates is None
    groups = await pipeline.score(request_of(with_copies(), duplicates="groups"))
    assert groups.duplicates == [[2, 7, 19], [4, 11]]
    assert all(item.nearest is None for item in groups.items)


async def test_copies_that_are_compared_with_a_reference_are_still_duplicates(pipeline):
    response = await pipeline.score(request_of(with_copies(), reference=noise(30, seed=1), **LIKENESS))
    assert response.context.source == "reference"
    assert response.duplicates == [[2, 7, 19], [4, 11]]


async def test_foreign_images_have_neighbours_too(pipeline):
    contents = with_copies()
    contents[4] = contents[11] = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    response = await pipeline.score(request_of(contents, foreign="flag", **LIKENESS))
    assert [item.index for item in response.items if item.is_foreign] == [4, 11]
    assert response.items[4].nearest[0].index == 11
    assert response.duplicates == [[2, 7, 19], [4, 11]]


async def test_an_explanation_has_the_same_neighbours_as_a_score(pipeline):
    scored = await pipeline.score(request_of(with_copies(), **LIKENESS))
    explanation = await pipeline.explain(request_of(with_copies(), options_type=ExplainOptions, **LIKENESS))
    for answer in (explanation.as_json().whole(), explanation.without_maps().whole()):
        assert answer.duplicates == scored.duplicates
        assert [item.nearest for item in answer.items] == [item.nearest for item in scored.items]


async def test_a_stream_names_neighbours_from_other_chunks_and_parts(pipeline, monkeypatch):
    monkeypatch.setattr(pipelines, "STREAM_PIECE", 6)
    contents, request = uploads(with_copies()), request_of(with_copies(), **LIKENESS)

    async def chunks():
        for start in range(0, 20, 8):
            yield replace(request, images=contents[start : start + 8])

    parts = [part async for part in pipeline.score_stream(chunks())]
    whole = await pipeline.score(request)
    assert [part.duplicates for part in parts] == [whole.duplicates, None, None, None]
    assert [item for part in parts for item in part.items] == whole.items


async def test_two_bad_images_of_one_name_are_both_told(pipeline):
    """By HTTP and by gRPC: the second under its name and a number, which is no other bad image's name."""
    named = {"a.png": [b"one", b"two2", b"three"], "a.png (2)": [b"four4"], "b.png": [b"fives"]}
    bad = [Upload(name, lambda content=content: content) for name, contents in named.items() for content in contents]
    request = request_of(noise(5), options_type=FitOptions)
    fitted = await pipeline.fit(replace(request, images=[*request.images, *bad]))
    assert list(fitted.errors) == ["a.png", "a.png (3)", "a.png (4)", "a.png (2)", "b.png"]
    lengths = [int(error.message.split()[0]) for error in fitted.errors.values()]
    assert lengths == [3, 4, 5, 5, 5]
    message = pb.FitResponse.FromString(METHODS["Fit"].serialise(fitted))
    assert {name: error.message for name, error in message.errors.items()} == {
        name: error.message for name, error in fitted.errors.items()
    }


async def test_identical_images_make_a_context_that_comes_back(pipeline):
    """Their radius may be 0."""
    for estimator in get_args(EstimatorName):
        images = np.repeat(noise(1), 40, axis=0)
        fitted = await pipeline.fit(request_of(images, options_type=FitOptions, estimator=estimator))
        (context,) = read_contexts(json.loads(fitted.model_dump_json())["context"])
        response = await pipeline.score(request_of(images[:3], contexts=[context]))
        assert np.isfinite([item.outlier_score for item in response.items]).all()


async def test_no_usable_image_is_an_error_that_tells_the_first(pipeline):
    with pytest.raises(UndecodableImage, match=r"None of the 2 images can be used\. The first, 0\.png: 3 bytes"):
        await pipeline.score(request_of([b"abc", b"de"]))
    small = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ShapeMismatch, match="None of the 1 reference images"):
        await pipeline.score(request_of(noise(3), reference=small, resize="reject"))


async def test_a_reference_is_the_context_and_its_bad_files_are_told_of(pipeline):
    response = await pipeline.score(request_of(noise(3), reference=[*noise(40, seed=1), b"broken"]))
    assert (response.context.source, response.context.size) == ("reference", 40)
    assert any("1 of the 41 reference images" in warning for warning in response.context.warnings)


async def test_large_requests_go_in_chunks_with_a_bound_on_those_under_way(pipeline, networks):
    count = 10 * chunked_inference.CHUNK_ROWS + 5
    response = await pipeline.score(request_of(np.repeat(noise(1), count, axis=0)))
    assert len(response.items) == count
    assert sorted(networks.calls) == [5] + [chunked_inference.CHUNK_ROWS] * 10
    assert networks.most_running <= chunked_inference.CHUNKS_IN_FLIGHT


async def test_all_requests_together_have_a_bound_on_the_calls_under_way(pipeline, networks):
    """There are a hundred connections to the networks' process, and its probes need one as well."""
    single, chunk = request_of(noise(1)), request_of(np.repeat(noise(1), chunked_inference.CHUNK_ROWS, axis=0))
    await asyncio.gather(*(pipeline.score(single) for _ in range(200)))
    assert 10 < networks.most_running <= 64
    networks.most_running = 0
    await asyncio.gather(*(pipeline.score(chunk) for _ in range(20)))
    assert networks.most_running * chunked_inference.CHUNK_ROWS <= chunked_inference.ROWS_AT_WORK


async def test_chunks_keep_the_order_of_the_images(pipeline, monkeypatch):
    monkeypatch.setattr(chunked_inference, "CHUNK_ROWS", 4)
    contents: list[object] = list(noise(30))
    for bad in (0, 5, 17, 29):
        contents[bad] = b"broken"
    chunked = await pipeline.score(request_of(contents))
    monkeypatch.setattr(chunked_inference, "CHUNK_ROWS", 1000)
    assert chunked == await pipeline.score(request_of(contents))
    assert [item.index for item in chunked.items if item.status == "error"] == [0, 5, 17, 29]


async def test_an_encoder_that_fails_fails_the_request_with_its_own_error(served_bundle):
    unavailable = UnavailableNetworks(served_bundle.manifest.latent_dim)
    with pytest.raises(InferenceUnavailable):
        await Pipeline(served_bundle, unavailable, Settings()).score(request_of(noise(300)))


async def test_files_and_pixels_give_the_same_scores(pipeline):
    pixels = noise(10)
    from_files = await pipeline.score(request_of([bodies.encoded(image) for image in pixels]))
    assert from_files == await pipeline.score(request_of(pixels))


def test_the_description_tells_what_is_served(pipeline, served_bundle):
    description = pipeline.describe("CPUExecutionProvider")
    assert description.bundle_id == served_bundle.manifest.bundle_id
    assert [latent.index for latent in description.latents] == list(range(description.latent_dim))
    assert description.default_estimator in description.estimators
    assert description.limits.max_images == 10_000


async def test_the_bundle_says_how_contexts_are_estimated_where_the_request_does_not(served_bundle, networks):
    manifest = served_bundle.manifest.model_copy(update={"estimator": "mixture"})
    pipeline = WholePipeline(replace(served_bundle, manifest=manifest), networks, Settings())
    assert pipeline.describe("CPUExecutionProvider").default_estimator == "mixture"
    pixels = noise(30)
    scored = await pipeline.score(request_of(pixels))
    assert scored.context.estimator == "mixture"
    assert (await pipeline.score(request_of(pixels, reference=noise(30, seed=1)))).context.estimator == "mixture"
    assert (await pipeline.score(request_of(pixels, estimator="robust"))).context.estimator == "robust"
    fitted = await pipeline.fit(request_of(pixels, options_type=FitOptions))
    assert fitted.context.estimator == "mixture"


# Reasons, contexts and pictures


def contexts_of(response):
    return [response.context]


@pytest.mark.parametrize("estimator", ["mixture", "robust", "leave_one_out"])
async def test_explanations_add_up_and_name_latents(pipeline, served_bundle, estimator):
    options = {"interactions": True, "top": 2, "estimator": estimator}
    explanation = await pipeline.explain(request_of(noise(60), options_type=ExplainOptions, **options))
    response = explanation.as_json().whole()
    live = served_bundle.population.live_dims
    for item in response.items:
        assert item.mahalanobis_squared == pytest.approx(sum(term.shapley for term in item.attributions), rel=1e-9)
        assert item.mahalanobis_squared == pytest.approx(sum(factor.shapley for factor in item.factors), rel=1e-9)
        assert item.mahalanobis_squared == pytest.approx(sum(pair.value for pair in item.interactions), rel=1e-9)
        assert [term.dead for term in item.attributions] == sorted(term.dead for term in item.attributions)
        assert len(item.attributions) == served_bundle.manifest.latent_dim
        assert bool(item.heat_maps) == item.is_outlier
        assert not item.is_outlier or len(item.heat_maps) == min(2, len(live))
        assert item.reason


async def test_score_attributes_what_it_is_asked_to(pipeline):
    for attributions, expected in (("none", 0), ("top", 3), ("all", pipeline.bundle.manifest.latent_dim)):
        response = await pipeline.score(request_of(noise(20), attributions=attributions))
        assert {len(item.attributions or ()) for item in response.items} == {expected}


async def test_a_fitted_context_scores_as_the_reference_did(pipeline):
    normal, images = noise(60, seed=1), noise(12)
    fitted = await pipeline.fit(request_of([*normal, b"broken"], options_type=FitOptions))
    assert list(fitted.errors) == ["60.png"]
    assert fitted.context.size == 60
    by_context = await pipeline.score(request_of(images, contexts=contexts_of(fitted)))
    by_reference = await pipeline.score(request_of(images, reference=normal))
    assert [i.outlier_score for i in by_context.items] == [i.outlier_score for i in by_reference.items]


async def test_contexts_merge_in_fit_and_wherever_several_come(pipeline):
    parts = [await pipeline.fit(request_of(noise(30, seed), options_type=FitOptions)) for seed in (1, 2)]
    contexts = [part.context for part in parts]
    merged = await pipeline.fit(request_of([], contexts=contexts, options_type=FitOptions))
    assert (merged.context.size, merged.context.estimator) == (60, "moments")
    more = await pipeline.fit(request_of(noise(30, 2), contexts=contexts[:1], options_type=FitOptions))
    np.testing.assert_allclose(more.context.moments.scatter, merged.context.moments.scatter, rtol=1e-9, atol=1e-9)
    together = await pipeline.score(request_of(noise(5), contexts=contexts))
    apart = await pipeline.score(request_of(noise(5), contexts=[merged.context]))
    assert [item.outlier_score for item in together.items] == [item.outlier_score for item in apart.items]


async def test_notes_of_the_request_and_ids_that_are_double_are_told_everywhere(pipeline):
    content = uploads(noise(3))
    content[2] = replace(content[2], id=content[0].id)
    notes = ("1 file is no image and was left out: 'a.csv'.",)
    double = (
        "2 images have the id '0.png' (index 0, 2): tell them apart by `index`, and name them by place, as index:0."
    )
    told = []
    for use_case, options in (
        (pipeline.score, ScoreOptions()), (pipeline.fit, FitOptions()), (pipeline.encode, EncodeOptions()),
        (pipeline.edit, EditOptions(which=["index:0"])),
    ):  # fmt: skip
        answer = await use_case(ImagesRequest(content, None, (), options, notes=notes))
        answer = answer.response if isinstance(answer, EditResult) else answer
        told.append(answer.warnings if use_case == pipeline.encode else answer.context.warnings)
    assert [warnings.count(notes[0]) for warnings in told] == [1] * 4
    assert [warnings.count(double) for warnings in told] == [1] * 4


async def test_an_array_that_may_be_one_image_is_refused_by_a_model_of_colours(pipeline):
    for shape in ((3, 64, 64), (4, 32, 32)):
        request = ImagesRequest(uploads(noise(3)), None, (), ScoreOptions(), shapes=((5, 64, 64, 3), shape))
        with pytest.raises(ShapeMismatch, match=r"grey images, or one of colour.*transpose\(1, 2, 0\)\[None\]"):
            await pipeline.score(request)


async def test_an_edit_answers_with_every_distance_and_the_latents(pipeline, served_bundle):
    images = noise(60)
    images[7, 0, :, :] = 255  # its latents are far from the others'
    gallery = await pipeline.edit(request_of(images, options_type=EditOptions))
    picture = next(picture for picture in gallery.response.pictures if picture.id == "7.png")
    assert picture.index == 7
    assert picture.changed
    distances = picture.mahalanobis_squared
    assert distances.before > distances.after
    assert distances.reencoded == pytest.approx(distances.after, rel=0.2, abs=0.1)  # pixels hold them in steps
    assert picture.inside
    assert len(picture.latents) == served_bundle.manifest.latent_dim
    assert gallery.images.shape == (len(gallery.response.pictures), 64, 64, 3)


async def test_pictures_come_as_json_as_a_sheet_and_as_files(pipeline):
    gallery = await pipeline.interpolate(request_of(noise(3), options_type=InterpolateOptions, frames=4))
    shown = gallery.as_json().whole().pictures
    decoded = [np.asarray(Image.open(BytesIO(base64.b64decode(picture.image)))) for picture in shown]
    np.testing.assert_array_equal(decoded, gallery.images)
    with zipfile.ZipFile(BytesIO(b"".join(gallery.as_zip()))) as archive:
        names = archive.namelist()
        assert names == [f"{frame}_frame_00{frame}.png" for frame in range(4)] + ["answer.json"]
        np.testing.assert_array_equal(np.asarray(Image.open(archive.open(names[0]))), gallery.images[0])
    assert Image.open(BytesIO(gallery.as_sheet())).width > 4 * 64


async def test_a_path_begins_and_ends_at_its_images(pipeline):
    images = noise(5)
    options = {"start": "1.png", "end": 4, "frames": 3}
    gallery = await pipeline.interpolate(request_of(images, options_type=InterpolateOptions, **options))
    latents = (await pipeline.encode(ImagesRequest(uploads(images), None, (), EncodeOptions()))).items
    np.testing.assert_allclose(gallery.response.pictures[0].latents, latents[1].mean)
    np.testing.assert_allclose(gallery.response.pictures[-1].latents, latents[4].mean)


async def test_traversals_vary_their_latent_alone(pipeline, served_bundle):
    first, second = (served_bundle.manifest.latents[dim] for dim in served_bundle.population.live_dims[:2])
    options = {"latents": [first.name, second.index], "steps": 5, "start": 2}
    gallery = await pipeline.traverse(request_of(noise(20), options_type=TraverseOptions, **options))
    assert [picture.index for picture in gallery.response.pictures] == [2] * 10
    assert {tuple(picture.changed) for picture in gallery.response.pictures[:5]} <= {(first.name,), ()}
    plane = await pipeline.traverse(request_of(noise(20), options_type=TraverseOptions, plane=True, **options))
    assert len(plane.response.pictures) == 25


async def test_without_a_choice_every_live_latent_is_traversed(pipeline, served_bundle):
    gallery = await pipeline.traverse(request_of(noise(20), options_type=TraverseOptions, steps=3))
    changed = [
        {name for picture in gallery.response.pictures[row : row + 3] for name in picture.changed}
        for row in range(0, len(gallery.response.pictures), 3)
    ]
    assert changed == [{served_bundle.manifest.latents[dim].name} for dim in served_bundle.population.live_dims]


async def test_samples_need_a_context_only(pipeline):
    fitted = await pipeline.fit(request_of(noise(60), options_type=FitOptions))
    options = {"options_type": SampleOptions, "method": "gaussian", "count": 6, "contexts": contexts_of(fitted)}
    samples = [await pipeline.sample(request_of([], seed=seed, **options)) for seed in (1, 1, 2)]
    latents = [[picture.latents for picture in sample.response.pictures] for sample in samples]
    assert latents[0] == latents[1] != latents[2]
    radius = fitted.context.radius_squared
    assert all(picture.mahalanobis_squared.after <= radius for picture in samples[0].response.pictures)


async def test_empirical_samples_tell_the_image_that_they_were_drawn_near(pipeline):
    sample = await pipeline.sample(request_of(noise(20), options_type=SampleOptions, count=30))
    assert {picture.index for picture in sample.response.pictures} <= set(range(20))


async def test_decode_shows_latents_without_a_context(pipeline, served_bundle):
    gallery = await pipeline.decode(np.zeros((2, served_bundle.manifest.latent_dim)))
    assert gallery.response.context is None
    assert [picture.mahalanobis_squared for picture in gallery.response.pictures] == [None, None]


@pytest.mark.parametrize(
    ("endpoint", "options_type", "options", "error", "message"),
    [
        ("edit", EditOptions, {"which": [99]}, InvalidOption, "There is no image 99"),
        ("edit", EditOptions, {"which": "all", "latents": ["hat"]}, UnknownLatent, "no latent 'hat'"),
        ("edit", EditOptions, {"which": "all", "edit": "set", "values": {"77": 1}}, UnknownLatent, "no latent '77'"),
        ("traverse", TraverseOptions, {"latents": [5, "5"], "plane": True}, InvalidOption, "both axes"),
        ("traverse", TraverseOptions, {"latents": [5], "plane": True}, InvalidOption, "two latents, 1 are given"),
        ("traverse", TraverseOptions, {"plane": True}, InvalidOption, r"two latents, the model has \d"),
        ("traverse", TraverseOptions, {"steps": 1000}, InvalidOption, r"at most 1000 are drawn"),
        ("interpolate", InterpolateOptions, {"end": "c.png"}, InvalidOption, r"There is no image 'c\.png'"),
    ],
)
async def test_what_cannot_be_drawn_is_refused_by_name(pipeline, endpoint, options_type, options, error, message):
    with pytest.raises(error, match=message):
        await getattr(pipeline, endpoint)(request_of(noise(20), options_type=options_type, **options))


# What one answer may hold, and how it is made


def json_of(found) -> bytes:
    return b"".join(found.json())


async def test_more_heat_maps_than_one_answer_may_hold_are_refused_before_anything_is_computed(pipeline, networks):
    live = len(pipeline.bundle.population.live_dims)
    most = 1000 // live
    wanted = {"options_type": ExplainOptions, "heat_maps": "all", "top": 10**6}
    with pytest.raises(InvalidOption, match=rf"{most + 1} images with {live} heat maps each are .* at most 1000"):
        await pipeline.explain(request_of(noise(most + 1), **wanted))
    assert networks.calls == []
    response = (await pipeline.explain(request_of(noise(most), **wanted))).as_json().whole()
    assert sum(len(item.heat_maps) for item in response.items) == most * live


async def test_of_more_flagged_images_the_most_outlying_get_heat_maps_and_a_warning_says_so(pipeline):
    live = len(pipeline.bundle.population.live_dims)
    most, options = 1000 // live, {"options_type": ExplainOptions, "threshold": 0.0, "top": 10**6}
    response = (await pipeline.explain(request_of(noise(300), **options))).as_json().whole()
    assert sum(item.is_outlier for item in response.items) == 300
    assert {item.rank for item in response.items if item.heat_maps} == set(range(1, most + 1))
    assert (
        f"300 images are flagged, more than get heat maps at a time: they are of the {most}"
        in (response.context.warnings[-1])
    )
    few = (await pipeline.explain(request_of(noise(most), **options))).as_json().whole()
    assert not any("heat maps" in warning for warning in few.context.warnings)


def test_of_larger_images_one_answer_may_hold_fewer(served_bundle):
    image = served_bundle.manifest.image
    sides = {64: 1000, 126: 1000, 256: 244, 1024: 15, 8000: 1}
    assert {side: most_pictures(image.model_copy(update={"height": side, "width": side})) for side in sides} == sides


async def test_pictures_are_counted_by_their_pixels(served_bundle, networks):
    image = served_bundle.manifest.image.model_copy(update={"height": 1024, "width": 1024})
    manifest = served_bundle.manifest.model_copy(update={"image": image})
    pipeline = Pipeline(replace(served_bundle, manifest=manifest), networks, Settings())
    for work, options in (
        (pipeline.sample, SampleOptions(count=16)),
        (pipeline.interpolate, InterpolateOptions(frames=16)),
        (pipeline.traverse, TraverseOptions(steps=4, plane=True, latents=[0, 1])),
    ):
        with pytest.raises(InvalidOption, match=r"16 pictures of 1024 x 1024 pixels; at most 15"):
            await work(ImagesRequest(uploads(noise(3)), None, (), options))
    with pytest.raises(InvalidOption, match="at most 15"):
        await pipeline.decode(np.zeros((16, manifest.latent_dim)))
    assert networks.calls == []


@pytest.mark.parametrize("chunk", [4, chunked_inference.CHUNK_ROWS])
async def test_images_that_were_not_kept_are_read_again(pipeline, monkeypatch, chunk):
    images = list(noise(40))
    images[7][0] = 255
    images[3] = b"broken"
    explained = request_of(images, options_type=ExplainOptions, threshold=0.2, heat_maps="all", top=2)
    edited = request_of(images, options_type=EditOptions, which=[7, 20, 0])
    kept = await pipeline.explain(explained), await pipeline.edit(edited)
    monkeypatch.setattr(batch_scorer, "MOST_KEPT", 0)
    monkeypatch.setattr(chunked_inference, "CHUNK_ROWS", chunk)
    again = await pipeline.explain(explained), await pipeline.edit(edited)
    for first, second in zip(kept, again, strict=True):
        assert json_of(first.as_json()) == json_of(second.as_json())
        assert first.as_sheet() == second.as_sheet()
        assert list(first.as_zip()) == list(second.as_zip())
    assert len(again[0].batch.images.pixels) == 0


async def test_images_leave_nothing_but_their_latents(pipeline):
    """A slice of no pixels would keep them all."""
    encoded = await pipeline._scorer.encode_uploads(
        uploads(noise(50)), EncodeOptions(), DecodeBudget.unlimited(), Reading()
    )
    assert encoded.pixels.base is None
    assert encoded.latents.nbytes < 50_000


@pytest.mark.parametrize("size", [1, 3000, 10**9])
async def test_answers_in_pieces_of_any_size_are_the_same_bytes(served_bundle, networks, monkeypatch, size):
    contents = list(noise(60))
    contents[0] = contents[31] = contents[59] = b"broken"
    pipeline = Pipeline(served_bundle, networks, Settings())
    explain = {"interactions": True, "heat_maps": "all", "top": 2, "threshold": 0.1}
    found = [
        await pipeline.score(request_of(contents)),
        await pipeline.score(request_of(contents, attributions="top")),
        await pipeline.score(request_of(contents, **LIKENESS)),
        (await pipeline.explain(request_of(contents, options_type=ExplainOptions, **explain))).as_json(),
        (await pipeline.explain(request_of(contents, options_type=ExplainOptions, **explain))).without_maps(),
        await pipeline.encode(ImagesRequest(uploads(contents), None, (), EncodeOptions())),
        (await pipeline.edit(request_of(contents, options_type=EditOptions, which="all"))).as_json(),
    ]
    whole = [answer.whole().model_dump_json(exclude_unset=True).encode() for answer in found]
    monkeypatch.setattr(chunked_response, "PIECE_BYTES", size)
    for answer, expected in zip(found, whole, strict=True):
        assert json_of(answer) == expected
        assert (
            len(list(answer.records())) == (len(answer.whole().model_dump()[answer.field]) if size == 1 else 1)
            or size == 3000
        )


async def test_scores_that_are_not_finite_are_an_error_before_the_first_piece(pipeline, monkeypatch):
    def spoiled(*arguments, **options):
        scores = scoring.score(*arguments, **options)
        return replace(scores, outlier_score=np.where(scores.rank == 1, np.nan, scores.outlier_score))

    monkeypatch.setattr(batch_scorer, "scoring", SimpleNamespace(score=spoiled))
    with pytest.raises(MisfitError, match="not finite"):
        await Pipeline.score(pipeline, request_of(noise(20)))


def deep_files(images, shift=4):
    """Images as TIFF files of 12 bits in 16, which state no range."""
    files = []
    for image in images:
        tifffile.imwrite(file := BytesIO(), image.astype(np.uint16) << shift)
        files.append(file.getvalue())
    return files


@pytest.mark.parametrize("chunk", [7, 128])
async def test_deep_images_are_scored_as_at_8_bits_with_one_range_for_all(pipeline, monkeypatch, chunk):
    """Some reach no more than 8 bits of 12, and the reference counts as well."""
    monkeypatch.setattr(chunked_inference, "CHUNK_ROWS", chunk)
    images = noise(20)
    images[3:9] //= 16
    reference = noise(12, seed=5)
    plain = (await pipeline.score(request_of(images, reference=reference))).model_dump()
    deep = (await pipeline.score(request_of(deep_files(images), reference=deep_files(reference // 16)))).model_dump()
    dark = (await pipeline.score(request_of(images, reference=reference // 16))).model_dump()
    assert deep["items"] == dark["items"] != plain["items"]
    assert [text for text in deep["context"]["warnings"] if "0 as black and 4095 as white" in text]
    some_deep = [*images[:10], *deep_files(images[10:])]
    mixed = (await pipeline.score(request_of(some_deep, reference=reference))).model_dump()
    assert mixed["items"] == plain["items"]


async def test_deep_images_that_are_read_again_have_the_same_range(pipeline, monkeypatch):
    monkeypatch.setattr(batch_scorer, "MOST_KEPT", 0)
    images = noise(12)
    options = {"options_type": EditOptions, "which": [1, 2]}
    plain = await pipeline.edit(request_of(images, **options))
    deep = await pipeline.edit(request_of(deep_files(images), **options))
    assert plain.as_sheet() == deep.as_sheet()


async def test_the_options_say_which_range(pipeline):
    files = deep_files(noise(6) // 2)
    answers = {}
    for choice in ("file", "batch", "full"):
        request = ImagesRequest(uploads(files), None, (), EncodeOptions(range=choice))
        answers[choice] = (await pipeline.encode(request)).model_dump()
    assert "4095 as white" in answers["file"]["warnings"][0]
    assert "1264 as white; range=batch" in answers["batch"]["warnings"][0]
    assert answers["full"]["warnings"] == [
        "6 of 6 images reach less than a quarter of the range that was read, and are dark: range=batch takes what the "
        "images have."
    ]
    assert len({str(answer["items"]) for answer in answers.values()}) == 3


async def test_a_deep_image_that_is_damaged_fails_alone(pipeline):
    files = deep_files(noise(5))
    tifffile.imwrite(file := BytesIO(), np.full((64, 64), np.nan, np.float32))
    answer = (await pipeline.score(request_of([*files, file.getvalue(), files[0][:-999]]))).model_dump()
    assert [item["status"] for item in answer["items"]] == ["ok"] * 5 + ["error"] * 2
    assert "finite" in answer["items"][5]["error"]["message"]


async def test_a_stream_keeps_the_range_of_its_first_deep_images(pipeline):
    images = noise(20)

    async def chunks(*parts):
        for part in parts:
            yield request_of(part)

    deep = [
        part async for part in pipeline.score_stream(chunks(deep_files(images[:10]), deep_files(images[10:] // 16)))
    ]
    plain = [part async for part in pipeline.score_stream(chunks(images[:10], images[10:] // 16))]
    assert deep[0].items == plain[0].items


async def test_fit_tells_the_range(pipeline):
    answer = await pipeline.fit(request_of(deep_files(noise(20)), options_type=FitOptions))
    assert "4095 as white" in answer.context.warnings[-1]
