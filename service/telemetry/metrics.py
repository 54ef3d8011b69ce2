"""The Prometheus metrics of the API workers, at GET /metrics. Those of the networks' process are in
`service.telemetry.batch_metrics`.

No value of a label comes from a client: this code or the bundle names every one.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, get_args

from service.bundle.store import Bundle
from service.core.drift import Drift
from service.errors import InvalidInput, MisfitError
from service.pipeline.batch import Batch, EncodedImages
from service.pipeline.hooks import Hooks, Stage
from service.telemetry import spans
from service.telemetry.bundle_label import MetricMaker
from service.telemetry.late_writes import late_writes

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Histogram

CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CONTEXT_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics(Hooks):
    """The metrics of one API worker. Make one object in each worker, after BentoML has set the files for the counts.

    Where several bundles are served, every further one has an object of its own, whose metrics have the label `bundle`.
    """

    def __init__(self, bundle: Bundle, registry: CollectorRegistry | None = None, name: str = "") -> None:
        """Make the metrics of `bundle`. `name` is the bundle's, "" for that which is served by default."""
        make = MetricMaker(name, registry)
        self._in_flight = {
            unit: make.gauge(name, text, multiprocess_mode="livesum")
            for unit, name, text in (
                ("images", "misfit_rows_in_flight", "Images being worked on in all requests."),
                (
                    "bytes",
                    "misfit_bytes_in_flight",
                    "Bytes of all bodies and messages, of the work on them and of its answers.",
                ),
            )
        }
        grpc_calls = make.counter("misfit_grpc_calls", "gRPC calls that have ended.", ("method", "code"))
        grpc_seconds = make.histogram(
            "misfit_grpc_call_seconds",
            "Seconds from a gRPC call's arrival to its end.",
            ("method",),
            buckets=CALL_SECONDS,
        )
        self._grpc_calls, self._grpc_seconds = cache(grpc_calls.labels), cache(grpc_seconds.labels)
        stage_seconds = make.histogram(
            "misfit_stage_seconds",
            "Seconds in one stage of a request, or of a chunk of it, waiting included.",
            ("stage",),
            buckets=STAGE_SECONDS,
        )
        self._scored, self._flagged, self._foreign = (
            make.counter(f"misfit_images_{name}", text)
            for name, text in (
                ("scored", "Images that were scored."),
                ("flagged", "Images among them that were flagged as outliers, foreign ones included."),
                ("foreign", "Images among them that are unlike anything that the model has seen."),
            )
        )
        self._item_errors = make.counter(
            "misfit_item_errors", "Images that could not be used, by the error they got.", ("code",)
        )
        self._contexts = make.counter(
            "misfit_contexts",
            "Contexts that images were compared with.",
            ("source", "estimator", "reliability"),
        )
        self._context_size = make.histogram(
            "misfit_context_size", "Images that such a context was fitted to.", buckets=CONTEXT_SIZES
        )
        self._drift = Drift(bundle.population)
        latents = bundle.manifest.latents
        self._drift_distance, self._drift_requests = (
            make.gauge(name, text, multiprocess_mode="livemostrecent")
            for name, text in (
                (
                    "misfit_drift_distance",
                    "Squared distance of recent images to the bundle's population, 1 being what is expected.",
                ),
                ("misfit_drift_requests", "Recent requests that the figures of drift rest on."),
            )
        )
        shift = make.gauge(
            "misfit_drift_latent_shift",
            "Mean of a latent over recent images, from the population's, in its standard deviations.",
            ("latent",),
            multiprocess_mode="livemostrecent",
        )
        self._drift_shift = [shift.labels(latents[index].name) for index in self._drift.live]
        self._stages = {stage: stage_seconds.labels(stage) for stage in get_args(Stage)}
        for kind in _list_kinds(InvalidInput):
            self._item_errors.labels(kind.code)
        self._report_drift()

    def follow(self, in_flight: Mapping[str, int]) -> None:
        """Report the images and bytes in flight, by unit, as they are whenever something is written."""
        for unit, gauge in self._in_flight.items():
            late_writes.follow(gauge, partial(in_flight.__getitem__, unit))

    def count_grpc_call(self, method: str, code: str, seconds: float) -> None:
        """Count a gRPC call that has ended with the status `code`, and its duration."""
        late_writes.inc(self._grpc_calls(method, code))
        late_writes.observe(self._grpc_seconds(method), seconds)

    def stage(self, name: Stage) -> MeasuredStage:
        """Measure the time of the block as one stage, and make the block a span of the request's trace."""
        return MeasuredStage(self._stages[name], spans.span(name))

    def encoded(self, images: EncodedImages) -> None:
        """Count the images that could not be used, and add the others to the figures of drift."""
        for code, count in Counts(error.code for error in images.errors.values()).items():
            self._item_errors.labels(code).inc(count)
        self._drift.add(images.latents)

    def scored(self, batch: Batch) -> None:
        """Count the scored images, and the context that they were compared with."""
        assert batch.scores is not None, "there are images"
        self._scored.inc(len(batch.scores.is_outlier))
        self._flagged.inc(int(batch.scores.is_outlier.sum()))
        if batch.images.check is not None:
            self._foreign.inc(int((batch.images.check.is_ood).sum()))
        context = batch.context
        self._contexts.labels(context.source, context.estimator, context.reliability).inc()
        if context.size:  # the population has none
            self._context_size.observe(context.size)

    def refresh(self) -> None:
        """Write what is not written at each request. Call this before the metrics are read."""
        late_writes.write()
        self._report_drift()

    def _report_drift(self) -> None:
        self._drift_distance.set(self._drift.distance)
        self._drift_requests.set(self._drift.requests)
        for gauge, shift in zip(self._drift_shift, self._drift.shift, strict=True):
            gauge.set(shift)


class MeasuredStage:
    """One block that is measured. Every request has several: a class takes half the time of a generator."""

    __slots__ = ("_seconds", "_span", "_started")

    def __init__(self, seconds: Histogram, span: AbstractContextManager[None]) -> None:
        self._seconds, self._span = seconds, span

    def __enter__(self) -> None:
        self._started = time.perf_counter()
        self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._span.__exit__(kind, error, traceback)
        finally:
            late_writes.observe(self._seconds, time.perf_counter() - self._started)


def _list_kinds(error: type[MisfitError]) -> list[type[MisfitError]]:
    """Return `error` and all of its subclasses."""
    return [error, *(kind for child in error.__subclasses__() for kind in _list_kinds(child))]
