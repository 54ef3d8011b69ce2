"""The flow from uploads to scores, with an encoder that is a plain function."""

import asyncio
import json

import bodies
import numpy as np
import pytest

from service import pipeline as flow
from service.errors import InferenceUnavailable, ShapeMismatch, UndecodableImage
from service.images import Upload
from service.pipeline import Pipeline
from service.requests import ScoreRequest
from service.schemas import ScoreOptions
from service.settings import Settings


class FakeEncoder:
    """Latents that tell which image they came from; counts its calls."""

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim
        self.calls: list[int] = []
        self.running = self.most_running = 0

    async def __call__(self, images):
        self.calls.append(len(images))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await asyncio.sleep(0.001)
        self.running -= 1
        flat = images.reshape(len(images), -1)[:, : self.latent_dim].astype(np.float32)
        return np.stack([flat / 64 - 2, np.full_like(flat, -4)], axis=1)


@pytest.fixture
def encoder(served_bundle):
    return FakeEncoder(served_bundle.manifest.latent_dim)


@pytest.fixture
def pipeline(served_bundle, encoder):
    return Pipeline(served_bundle, encoder, Settings())


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(96, 160, (count, 64, 64, 3), dtype=np.uint8)


def uploads(contents) -> list[Upload]:
    return [Upload(f"{i}.png", lambda content=content: content) for i, content in enumerate(contents)]


def request_of(contents, reference=None, **options) -> ScoreRequest:
    return ScoreRequest(uploads(contents), None if reference is None else uploads(reference), ScoreOptions(**options))


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


async def test_large_requests_go_in_chunks_with_a_bound_on_those_under_way(pipeline, encoder):
    count = 10 * flow.CHUNK_ROWS + 5
    response = await pipeline.score(request_of(np.repeat(noise(1), count, axis=0)))
    assert len(response.items) == count
    assert sorted(encoder.calls) == [5] + [flow.CHUNK_ROWS] * 10
    assert encoder.most_running <= flow.CHUNKS_IN_FLIGHT


async def test_chunks_keep_the_order_of_the_images(pipeline, monkeypatch):
    monkeypatch.setattr(flow, "CHUNK_ROWS", 4)
    contents: list[object] = list(noise(30))
    for bad in (0, 5, 17, 29):
        contents[bad] = b"broken"
    chunked = await pipeline.score(request_of(contents))
    monkeypatch.setattr(flow, "CHUNK_ROWS", 1000)
    assert chunked == await pipeline.score(request_of(contents))
    assert [item.index for item in chunked.items if item.status == "error"] == [0, 5, 17, 29]


async def test_an_encoder_that_fails_fails_the_request_with_its_own_error(served_bundle):
    async def unavailable(images):
        raise InferenceUnavailable("gone")

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
