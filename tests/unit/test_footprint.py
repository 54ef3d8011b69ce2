"""The bytes that admission counts for a request cover what it takes, and are not far more."""

import tracemalloc

import numpy as np
import pytest
from fakes import FakeNetworks

from service import footprint
from service.grpc_messages import METHODS
from service.http import JSON, PNG, ZIP, _media_type, _pieces
from service.images import Upload
from service.options import EditOptions, EncodeOptions, ExplainOptions, FitOptions, SampleOptions, ScoreOptions
from service.pipeline import Pipeline
from service.requests import ImagesRequest
from service.settings import Settings

ACCEPTED = {"pieces": JSON, "files": ZIP, "sheet": PNG}
EVERYTHING = {"interactions": True, "threshold": 0.0, "top": 100}


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


@pytest.mark.parametrize("count", [300, 4000])
@pytest.mark.parametrize(
    ("method", "options", "form"),
    [
        ("Score", ScoreOptions(foreign="off"), "pieces"),
        ("Score", ScoreOptions(foreign="off", attributions="all"), "pieces"),
        ("Score", ScoreOptions(foreign="off", attributions="all"), "message"),
        ("Score", ScoreOptions(foreign="off", estimator="mcd"), "pieces"),
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
async def test_the_estimate_covers_what_a_request_takes(served_bundle, method, options, form, count):
    pipeline = Pipeline(served_bundle, NoisyNetworks(served_bundle.manifest.latent_dim), Settings())
    asked = request_of(count, options)
    await METHODS[method].work(pipeline, request_of(3, options.model_copy(update={"which": [0]})))  # imports and caches
    tracemalloc.start()
    try:
        found = await METHODS[method].work(pipeline, asked)
        if form == "message":
            METHODS[method].answer(found)
        else:
            for _ in _pieces(found, _media_type(found, ACCEPTED[form])):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimate = footprint.of_request(asked, served_bundle, form)
    print(method, form, count, getattr(options, "top", 0), f"{peak / 2**20:.1f} of {estimate / 2**20:.1f} MiB")
    assert peak < estimate
