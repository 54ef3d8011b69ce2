"""What the pipeline, the networks' process and gRPC tell Prometheus."""

import asyncio

import numpy as np
import pytest
from fakes import FakeNetworks
from prometheus_client import CollectorRegistry

from service.api.options import EditOptions, ExplainOptions, FitOptions, ScoreOptions
from service.api.requests import ImagesRequest
from service.errors import InferenceUnavailable, InvalidInput, UndecodableImage
from service.images.decode import Upload
from service.inference.local import LocalNetworks
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from service.telemetry.batch_metrics import BatchMetrics
from service.telemetry.late_writes import late_writes
from service.telemetry.metrics import Metrics


class Networks(FakeNetworks):
    """Latents from the population's sample; pictures that are all black."""

    def __init__(self, bundle):
        self.sample, self.latent_dim = bundle.population.sample, bundle.manifest.latent_dim

    async def encode(self, images):
        means = self.sample[: len(images)]
        return np.stack([means, np.full_like(means, -4)], axis=1).astype(np.float32)

    async def decode(self, latents):
        return np.zeros((len(latents), 64, 64, 3), dtype=np.uint8)

    async def saliency(self, images):
        return np.zeros((len(images), self.latent_dim, 4, 4), dtype=np.float32)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(served_bundle, registry):
    return Metrics(served_bundle, registry)


@pytest.fixture
def pipeline(served_bundle, metrics):
    return Pipeline(served_bundle, Networks(served_bundle), Settings(), metrics)


def request_of(options, count=30, broken=0):
    contents = [np.zeros((64, 64, 3), dtype=np.uint8)] * count + [b"broken"] * broken
    return ImagesRequest([Upload(f"{i}", lambda c=c: c) for i, c in enumerate(contents)], None, (), options)


def stages(registry):
    """How often each stage was gone through."""
    late_writes.write()
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {s.labels["stage"]: s.value for s in samples if s.name == "misfit_stage_seconds_count" and s.value}


async def test_a_request_is_counted_by_its_images_its_context_and_its_stages(pipeline, registry):
    answer = (await pipeline.score(request_of(ScoreOptions(foreign="off"), broken=2))).whole()
    flagged = sum(item.is_outlier is True for item in answer.items)
    value = registry.get_sample_value
    assert value("misfit_images_scored_total") == 30
    assert value("misfit_images_flagged_total") == flagged
    assert value("misfit_images_foreign_total") == 0
    assert value("misfit_item_errors_total", {"code": "undecodable_image"}) == 2
    context = {"source": "batch", "estimator": "ensemble", "reliability": answer.context.reliability}
    assert value("misfit_contexts_total", context) == 1
    assert value("misfit_context_size_sum") == 30
    assert stages(registry) == {"decode": 1, "encode": 1, "statistics": 1, "serialise": 1}


async def test_the_population_is_a_context_without_a_size(pipeline, registry):
    await pipeline.score(request_of(ScoreOptions(foreign="off"), count=1))
    context = {"source": "population", "estimator": "ensemble", "reliability": "low"}
    assert registry.get_sample_value("misfit_contexts_total", context) == 1
    assert registry.get_sample_value("misfit_context_size_count") == 0


async def test_foreign_images_are_counted(pipeline, registry):
    """Against black pictures, white images are as unlike as can be."""
    white = [Upload(str(i), lambda: np.full((64, 64, 3), 255, dtype=np.uint8)) for i in range(5)]
    request = request_of(ScoreOptions())
    await pipeline.score(ImagesRequest([*request.images, *white], None, (), ScoreOptions()))
    assert registry.get_sample_value("misfit_images_foreign_total") == 5
    assert registry.get_sample_value("misfit_images_flagged_total") >= 5
    assert stages(registry) == {"decode": 1, "encode": 1, "statistics": 1, "serialise": 1}


async def test_every_stage_is_gone_through_by_some_request(pipeline, registry):
    await pipeline.explain(request_of(ExplainOptions(foreign="off", heat_maps="all")))
    await pipeline.edit(request_of(EditOptions(foreign="off", which="all")))
    assert stages(registry).keys() == {"decode", "encode", "draw", "statistics", "explain", "saliency", "edit"}
    await pipeline.fit(request_of(FitOptions(foreign="off")))
    assert registry.get_sample_value("misfit_images_scored_total") == 60, "fitting scores nothing"


async def test_a_stage_that_fails_is_timed_all_the_same(pipeline, registry, monkeypatch):
    async def gone(images):
        raise InferenceUnavailable("gone")

    monkeypatch.setattr(pipeline.networks, "encode_checked", gone)
    with pytest.raises(InferenceUnavailable):
        await pipeline.score(request_of(ScoreOptions()))
    assert stages(registry) == {"decode": 1, "encode": 1}
    assert registry.get_sample_value("misfit_images_scored_total") == 0


async def test_a_request_of_broken_images_is_counted_too(pipeline, registry):
    with pytest.raises(UndecodableImage):
        await pipeline.score(request_of(ScoreOptions(), count=0, broken=3))
    assert registry.get_sample_value("misfit_item_errors_total", {"code": "undecodable_image"}) == 3
    assert registry.get_sample_value("misfit_drift_requests") == 0


async def test_drift_is_told_latent_by_latent(pipeline, registry, served_bundle):
    value = registry.get_sample_value
    assert (value("misfit_drift_distance"), value("misfit_drift_requests")) == (1, 0)
    await pipeline.score(request_of(ScoreOptions(foreign="off"), count=100))
    population = served_bundle.population
    pipeline.hooks.refresh()
    assert value("misfit_drift_requests") == 1
    assert 0.5 < value("misfit_drift_distance") < 1.5
    for latent in served_bundle.manifest.latents:
        told = value("misfit_drift_latent_shift", {"latent": latent.name})
        if latent.dead:
            assert told is None
        else:
            i = latent.index
            shift = population.sample[:100, i].mean() - population.location[i]
            assert told == pytest.approx(shift / np.sqrt(population.covariance[i, i]), abs=1e-4)


def test_every_item_error_is_there_from_the_start(registry, metrics):
    codes = {
        sample.labels["code"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "misfit_item_errors_total"
    }
    kinds = {kind.code for kind in InvalidInput.__subclasses__()}
    assert codes == {InvalidInput.code, *kinds}


def test_an_adaptive_batch_is_told_by_rows_fill_and_time(registry, served_bundle):
    metrics = BatchMetrics(registry)
    metrics.report_bundle(served_bundle, "CPUExecutionProvider")
    with metrics.adaptive_batch("encode", rows=40, computed=64):
        pass
    value = registry.get_sample_value
    assert value("misfit_adaptive_batch_rows_sum", {"network": "encode"}) == 40
    assert value("misfit_adaptive_batch_fill_sum", {"network": "encode"}) == 40 / 64
    assert value("misfit_adaptive_batch_seconds_count", {"network": "encode"}) == 1
    manifest = served_bundle.manifest
    labels = {"bundle_id": manifest.bundle_id, "model": manifest.model, "provider": "CPUExecutionProvider"}
    assert value("misfit_info", labels) == 1


async def test_every_job_s_wait_is_told_as_its_batch_begins(registry, served_bundle):
    networks = LocalNetworks(served_bundle, hooks=BatchMetrics(registry))
    images = np.zeros((3, *served_bundle.manifest.image.shape), np.uint8)
    await asyncio.gather(networks.encode(images), networks.encode(images))
    value = registry.get_sample_value
    assert value("misfit_queue_age_seconds_count", {"network": "encode"}) == 2
    assert value("misfit_adaptive_batch_rows_sum", {"network": "encode"}) == 6
    assert value("misfit_adaptive_batch_seconds_count", {"network": "encode"}) in (1, 2)
