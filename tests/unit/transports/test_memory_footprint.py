"""The bytes that admission counts for a request cover what it takes, and are not many times as much."""

import tracemalloc

import numpy as np
import pytest
from fakes import FakeNetworks

from service.api.options import (
    SHEET_IMAGES,
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    SampleOptions,
    ScoreOptions,
    ScoreSheetOptions,
)
from service.api.requests import ImagesRequest
from service.images.decode import Upload
from service.images.pictures.ranked_sheet import MOST_TILE_PIXELS
from service.pipeline.pipeline import STREAM_PIECE, Pipeline
from service.settings import Settings
from service.transports import memory_footprint
from service.transports.grpc.converters import METHODS
from service.transports.http.negotiation import JSON, PNG, ZIP
from service.transports.http.responses import _iterate_pieces
from service.transports.memory_footprint import SHEET_PIXELS

ACCEPTED = {"pieces": JSON, "files": ZIP, "sheet": PNG}
EVERYTHING = {"interactions": True, "threshold": 0.0, "top": 100}
LIKENESS = {"nearest": 10, "duplicates": "groups"}


class NoisyNetworks(FakeNetworks):
    """Latents of a population's spread, and pictures that no PNG makes smaller."""

    def __init__(self, latent_dim):
        self.latent_dim, self.rng = latent_dim, np.random.default_rng(0)

    async def encode(self, images):
        mean = self.rng.normal(size=(len(images), self.latent_dim))
        return np.stack([mean, np.full_like(mean, -3)], axis=1).astype(np.float32)

    async def decode(self, latents):
        return self.rng.integers(0, 256, (len(latents), 64, 64, 3), dtype=np.uint8)

    async def saliency(self, images):
        return self.rng.normal(size=(len(images), self.latent_dim, 8, 8)).astype(np.float32)


def request_of(count: int, options) -> ImagesRequest:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return ImagesRequest([Upload(f"{i:05}.png", lambda i=i: pixels[i]) for i in range(count)], None, (), options)


@pytest.mark.parametrize(
    ("method", "options", "form"),
    [
        ("Score", ScoreOptions(foreign="off"), "pieces"),
        ("Score", ScoreOptions(foreign="off", attributions="all"), "pieces"),
        ("Score", ScoreOptions(foreign="off", attributions="all"), "message"),
        ("Score", ScoreOptions(foreign="off", estimator="mcd"), "pieces"),
        ("Score_sheet", ScoreSheetOptions(foreign="off", threshold=0), "sheet"),
        ("Score", ScoreOptions(foreign="off", **LIKENESS), "pieces"),
        ("Score", ScoreOptions(foreign="off", **LIKENESS), "message"),
        ("Explain", ExplainOptions(foreign="off", **EVERYTHING), "pieces"),
        ("Explain", ExplainOptions(foreign="off", **EVERYTHING), "files"),
        ("Explain", ExplainOptions(foreign="off", **EVERYTHING), "message"),
        ("Explain", ExplainOptions(foreign="off", **EVERYTHING), "sheet"),
        ("Explain", ExplainOptions(foreign="off", **EVERYTHING | {"top": 1}), "pieces"),
        ("Encode", EncodeOptions(), "pieces"),
        ("Encode", EncodeOptions(), "message"),
        ("Fit", FitOptions(foreign="off"), "pieces"),
        ("Edit", EditOptions(foreign="off", which=list(range(250)), edit="project"), "pieces"),
        ("Sample", SampleOptions(foreign="off", count=1000), "pieces"),
        ("Sample", SampleOptions(foreign="off", count=1000), "message"),
        ("Sample", SampleOptions(foreign="off", count=1000), "files"),
        ("Sample", SampleOptions(foreign="off", count=1000), "sheet"),
    ],
)
async def test_the_estimate_covers_what_a_request_takes(served_bundle, method, options, form):
    await check_estimate(served_bundle, method, options, form, 250)


@pytest.mark.parametrize("form", ["pieces", "message"])
async def test_the_estimate_covers_what_a_large_request_takes(served_bundle, form):
    await check_estimate(served_bundle, "Explain", ExplainOptions(foreign="off", **EVERYTHING), form, 1500)


async def check_estimate(served_bundle, method, options, form, count):
    pipeline = Pipeline(served_bundle, NoisyNetworks(served_bundle.manifest.latent_dim), Settings())
    asked = request_of(count, options)
    await getattr(pipeline, method.lower())(
        request_of(3, options.model_copy(update={"which": [0]}))
    )  # imports and caches
    tracemalloc.start()
    try:
        found = await getattr(pipeline, method.lower())(asked)
        if form == "message":
            METHODS[method].serialise(found)
        else:
            for _ in _iterate_pieces(found, ACCEPTED[form]):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimate = memory_footprint.of_request(asked, served_bundle, form)
    if form == "sheet":
        # Which Pillow holds, and no one tells of.
        peak += 4 * (SHEET_IMAGES * MOST_TILE_PIXELS if method == "Score_sheet" else SHEET_PIXELS)
    assert peak < estimate < 8 * peak


async def test_contexts_count(served_bundle):
    pipeline = Pipeline(served_bundle, NoisyNetworks(served_bundle.manifest.latent_dim), Settings())
    context = (await pipeline.fit(request_of(1000, FitOptions(foreign="off")))).context
    with_context, without = (
        memory_footprint.of_request(ImagesRequest((), None, contexts, SampleOptions()), served_bundle)
        for contexts in ([context] * 100, ())
    )
    assert (with_context - without) / 100 > len(context.model_dump_json())


def test_what_is_asked_of_each_image_counts(served_bundle):
    def size(options, count=1000, form="pieces"):
        return memory_footprint.of_request(request_of_ids(["x"] * count, options), served_bundle, form)

    assert size(ScoreOptions(), 2000) > size(ScoreOptions()) + 1000 * 1024
    plain, attributed = (size(ScoreOptions(attributions=each), 5000, "message") for each in ("none", "all"))
    assert attributed > plain + 5 * 2**20
    explained, with_pairs = (size(ExplainOptions(interactions=each), 5000, "message") for each in (False, True))
    assert with_pairs > explained + 5 * 2**20
    long = request_of_ids(["x" * 10_000] * 1000, ScoreOptions())
    assert (
        memory_footprint.of_request(long, served_bundle, "message") > size(ScoreOptions(), form="message") + 10 * 2**20
    )
    assert size(SampleOptions(count=1000)) > size(SampleOptions(count=1)) + 1000 * 64 * 64 * 3


def test_the_ids_of_neighbours_count(served_bundle):
    """One long id may be the neighbour of every image."""

    def size(options, ids, form="message"):
        return memory_footprint.of_request(request_of_ids(ids, options), served_bundle, form)

    short, long = ["x"] * 1000, ["x"] * 999 + ["x" * 10_000]
    for options in (ScoreOptions(nearest=10), ExplainOptions(nearest=10, heat_maps="none")):
        assert size(options, long) > size(options, short) + 1000 * 10 * 10_000
        assert size(options, long, "pieces") > size(options, short, "pieces") + 10 * 10_000
    assert size(ScoreOptions(**LIKENESS), short, "pieces") > size(ScoreOptions(), short, "pieces") + 1000 * 10 * 32


def test_a_stream_counts_neighbours_by_the_options_of_its_first_chunk(served_bundle):
    def size(options, ids):
        return memory_footprint.of_chunk(request_of_ids(ids, ScoreOptions()), served_bundle, options)

    short, long = ["x" * 200] * 1000, ["x" * 200] * 999 + ["x" * 10_000]
    plain, compared = ScoreOptions(), ScoreOptions(**LIKENESS)
    assert size(plain, short) + 1000 * 10 * 32 < size(compared, short) < size(plain, short) + 2**20
    assert size(compared, long) > size(compared, short) + STREAM_PIECE * 10 * 9_000


def request_of_ids(ids, options) -> ImagesRequest:
    return ImagesRequest([Upload(each, bytes) for each in ids], None, (), options)


def test_the_settings_leave_room_for_one_full_request(served_bundle):
    memory_footprint.check_full_request(Settings(), served_bundle)
    tight = Settings(max_bytes_in_flight=256 * 2**20)
    with pytest.raises(ValueError, match="MISFIT_MAX_BYTES_IN_FLIGHT is 268435456, but one request"):
        memory_footprint.check_full_request(tight, served_bundle)
    memory_footprint.check_full_request(
        Settings(max_bytes_in_flight=256 * 2**20, max_body_bytes=32 * 2**20, max_images=1000), served_bundle
    )
