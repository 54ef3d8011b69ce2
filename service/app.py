"""The BentoML services: `Inference` runs the networks, `Misfit` is the API in front of it.

Only row-wise work is batchable: `Inference` merges the rows of all requests as traffic has it, and
every statistic is computed in `Misfit`, per request, once its rows are back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import bentoml
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

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
from service.api.requests import ImagesRequest, OptionsT
from service.api.schemas import Description, EncodeResponse, FitResponse, PicturesResponse, ScoreResponse
from service.bundle import store
from service.decoding.pool import DecodePool
from service.errors import BundleError
from service.hosting import circus_sockets, shutdown, uvicorn_protocol
from service.hosting.io_descriptors import DecodeForm, DescribeForm, form
from service.hosting.workers import Api, Batching, addresses
from service.inference.hardware import has_gpu
from service.inference.onnx_runtime import Networks
from service.inference.remote import RemoteNetworks
from service.pipeline.pipeline import Pipeline
from service.settings import Settings, warn_of_unknown_variables
from service.telemetry import logs
from service.telemetry.batch_metrics import MAX_ADAPTIVE_BATCH, batch_metrics
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import NOT_TRACED
from service.transports import memory_footprint
from service.transports.admission import Admission, Ticket
from service.transports.grpc.port import claim_port
from service.transports.grpc.server import Server
from service.transports.grpc.servicer import Servicer
from service.transports.http.body_parsers import parse, parse_latents
from service.transports.http.middleware import (
    AccessLog,
    Authentication,
    ErrorBodies,
    OwnScriptsOnly,
    ReadableMetrics,
    UntilSent,
    until_sent,
)
from service.transports.http.request_body import read_body, while_connected
from service.transports.http.responses import PNG, ZIP, Answer, answer, media_type_wanted

# BentoML answers 503 for what took longer, after doing the work: `Admission` turns requests away earlier.
MAX_LATENCY_MS = 60_000
# Of calls from one service to the other. Longer than any MISFIT_TIMEOUT_SECONDS in earnest: that one answers in our own
# words.
TRANSPORT_TIMEOUT = 3600
# By default BentoML closes the connections to a service after 100 calls, whatever is still under way on them.
NEVER_RECONNECT = {"max_requests": 2**31, "max_age": 1e9}
# `service.telemetry.logs` has a line for each request.
NO_ACCESS_LOG = {"access": {"enabled": False}}
TRACING = {"excluded_urls": list(NOT_TRACED)}


@bentoml.service(
    workers=1,
    threads=1,
    traffic={"timeout": TRANSPORT_TIMEOUT},
    runner_connection=NEVER_RECONNECT,
    logging=NO_ACCESS_LOG,
    tracing=TRACING,
    service_class=Batching,
)
class Inference:
    """The networks of one bundle, batching the rows of all requests."""

    def __init__(self) -> None:
        settings = Settings()
        loaded = store.load(settings.bundle_directory)
        self.networks = Networks(loaded, require_gpu=settings.require_gpu)
        batch_metrics().running(loaded, self.networks.provider)

    @bentoml.on_startup
    async def live_longest(self) -> None:
        if (mine := shutdown.open_lock(addresses(), shutdown.INFERENCE)) is not None:
            shutdown.hold(mine)
        if (api := shutdown.open_lock(addresses(), shutdown.API)) is not None:
            shutdown.stop_after_holders(api)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with batch_metrics().adaptive_batch("encode", len(images), self.networks.computed(len(images))):
            return self.networks.encode(images)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def encode_checked(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with batch_metrics().adaptive_batch("encode_checked", len(images), self.networks.computed(len(images))):
            return self.networks.encode_checked(images)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        with batch_metrics().adaptive_batch("decode", len(latents), self.networks.computed(len(latents))):
            return self.networks.decode(latents)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def saliency(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with batch_metrics().adaptive_batch("saliency", len(images), self.networks.computed(len(images))):
            return self.networks.saliency(images)

    @bentoml.api
    def provider(self) -> str:
        return self.networks.provider


@bentoml.service(
    workers=1,
    logging=NO_ACCESS_LOG,
    tracing=TRACING,
    service_class=Api,
)
class Misfit:
    """Finds the images that do not belong in their batch."""

    inference = bentoml.depends(Inference)

    @bentoml.on_deployment
    def _refuse_early() -> None:
        """Before any process starts: one line about what is wrong, in place of a trace from each of them."""
        circus_sockets.close_control_sockets()
        shutdown.name_supervisor()
        warn_of_unknown_variables()
        try:
            settings = Settings()
            logs.configure(settings.log_format, "supervisor")
            memory_footprint.check_full_request(settings, store.load(settings.bundle_directory))
        except (BundleError, ValueError) as error:  # a ValidationError is one
            raise SystemExit(f"misfit cannot start: {error}") from None
        if settings.require_gpu and not has_gpu():
            raise SystemExit("misfit cannot start: MISFIT_REQUIRE_GPU is set, and there is no GPU (/dev/nvidiactl).")
        if settings.grpc_port:
            try:
                claim_port(settings.grpc_host, settings.grpc_port).detach()  # held until this process ends
            except OSError as error:
                raise SystemExit(
                    f"misfit cannot start: gRPC cannot listen on {settings.grpc_host}:{settings.grpc_port}: "
                    f"{error.strerror}. Choose another MISFIT_GRPC_PORT, or 0 for none."
                ) from None

    def __init__(self) -> None:
        watch = shutdown.Watch(shutdown.open_lock(addresses(), shutdown.INFERENCE))
        if (lock := shutdown.open_lock(addresses(), shutdown.API)) is not None:
            shutdown.hold(lock)
            addresses().update(shutdown.lasting(addresses()))
        self.settings = Settings()
        self.networks = RemoteNetworks(self.inference, watch.has_ended)
        loaded = store.load(self.settings.bundle_directory)
        self.metrics = Metrics(loaded)
        self.decoder = DecodePool(self.settings)
        self.pipeline = Pipeline(loaded, self.networks, self.settings, self.metrics, self.decoder)
        limits = self.settings.max_rows_in_flight, self.settings.max_bytes_in_flight
        self.admission = Admission(*limits, self.metrics.in_flight)

    @bentoml.on_startup
    async def start(self) -> None:
        self.decoder.start()
        self.grpc: Server | None = None
        if self.settings.grpc_port:
            servicer = Servicer(self.pipeline, self.networks.provider, self.admission, self.metrics)
            self.grpc = Server(servicer, self._is_ready, self.settings)
            await self.grpc.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        if self.grpc is not None:
            await self.grpc.stop()
        self.decoder.close()

    @bentoml.api(route="/score", input_spec=form(ScoreOptions), output_spec=ScoreResponse)
    async def score(self, request: Request) -> Response:
        """Score every image by how far it lies from the others, or from a reference set."""
        return await self._images_answer(request, ScoreOptions, self.pipeline.score)

    @bentoml.api(route="/explain", input_spec=form(ExplainOptions), output_spec=ScoreResponse)
    async def explain(self, request: Request) -> Response:
        """Score every image, and say why: latent by latent, in a sentence, and with heat maps."""
        return await self._images_answer(request, ExplainOptions, self.pipeline.explain)

    @bentoml.api(route="/fit", input_spec=form(FitOptions), output_spec=FitResponse)
    async def fit(self, request: Request) -> Response:
        """The context that the images make, to be kept and sent with other requests; contexts sent along are merged."""
        return await self._images_answer(request, FitOptions, self.pipeline.fit)

    @bentoml.api(route="/edit", input_spec=form(EditOptions), output_spec=PicturesResponse)
    async def edit(self, request: Request) -> Response:
        """What the images would look like if they belonged, or with other latents."""
        return await self._images_answer(request, EditOptions, self.pipeline.edit)

    @bentoml.api(route="/traverse", input_spec=form(TraverseOptions), output_spec=PicturesResponse)
    async def traverse(self, request: Request) -> Response:
        """Pictures along every live latent, the named ones or a plane of two, over the range that the context has."""
        return await self._images_answer(request, TraverseOptions, self.pipeline.traverse)

    @bentoml.api(route="/interpolate", input_spec=form(InterpolateOptions), output_spec=PicturesResponse)
    async def interpolate(self, request: Request) -> Response:
        """Pictures on the way from one image to another."""
        return await self._images_answer(request, InterpolateOptions, self.pipeline.interpolate)

    @bentoml.api(route="/sample", input_spec=form(SampleOptions), output_spec=PicturesResponse)
    async def sample(self, request: Request) -> Response:
        """New pictures that belong to the context."""
        return await self._images_answer(request, SampleOptions, self.pipeline.sample)

    @bentoml.api(route="/encode", input_spec=form(EncodeOptions), output_spec=EncodeResponse)
    async def encode(self, request: Request) -> Response:
        """The latents of every image: mean and logvar."""
        return await self._images_answer(request, EncodeOptions, self.pipeline.encode)

    @bentoml.api(route="/decode", input_spec=DecodeForm, output_spec=PicturesResponse)
    async def decode(self, request: Request) -> Response:
        """The pictures of latents."""
        return await self._answer(request, self._decode(request))

    @bentoml.api(route="/describe", input_spec=DescribeForm, output_spec=Description)
    async def describe(self, request: Request) -> Response:
        """The model, its latents, the limits, and where the networks run."""
        return await self._answer(request, self._describe())

    async def _images_answer(
        self,
        request: Request,
        options_type: type[OptionsT],
        work: Callable[[ImagesRequest[OptionsT]], Coroutine[Any, Any, Answer]],
    ) -> Response:
        """What `work` makes of the request, once it is read and there is room for it."""

        async def admitted() -> Answer:
            ticket = until_sent(request).enter_context(self.admission.ticket())
            body = await self._body(request, ticket)
            content_type = request.headers.get("content-type", "")
            query = request.query_params
            ticket.take_work(memory_footprint.of_parsing(content_type, len(body)))
            with self.metrics.stage("parse"):
                asked = await asyncio.to_thread(parse, content_type, query, body, self.settings, options_type)
            logs.add_images(asked.size)
            ticket.take_images(asked.size)
            size = memory_footprint.of_request(asked, self.pipeline.bundle, _form(request))
            ticket.take_work(size)
            del body
            found = await while_connected(request, work(asked))
            ticket.keep(size)
            return found

        return await self._answer(request, admitted())

    async def _answer(self, request: Request, work: Coroutine[Any, Any, Answer]) -> Response:
        return await answer(request, work, self.settings.timeout_seconds, self.metrics)

    async def _body(self, request: Request, ticket: Ticket) -> bytes:
        return await read_body(request, self.settings.max_body_bytes, self.settings.body_seconds, ticket)

    async def _decode(self, request: Request) -> Answer:
        ticket = until_sent(request).enter_context(self.admission.ticket())
        body = await self._body(request, ticket)
        content_type = request.headers.get("content-type", "")
        latent_dim = self.pipeline.bundle.manifest.latent_dim
        with self.metrics.stage("parse"):
            latents = await asyncio.to_thread(parse_latents, content_type, body, latent_dim)
        logs.add_images(len(latents))
        ticket.take_images(len(latents))
        size = memory_footprint.of_latents(len(latents), self.pipeline.bundle, _form(request))
        ticket.take_work(size)
        found = await while_connected(request, self.pipeline.decode(latents))
        ticket.keep(size)
        return found

    async def _describe(self) -> Answer:
        return self.pipeline.describe(await self.networks.provider())

    async def __is_alive__(self) -> bool:
        """Misfit without Inference, or without anything that decodes, is of no use: it fails, and all are restarted."""
        return await self._is_ready()

    async def __is_ready__(self) -> bool:
        return await self._is_ready()

    async def _is_ready(self) -> bool:
        return all(await asyncio.gather(self.networks.is_ready(), self.decoder.is_alive()))


def _form(request: Request) -> memory_footprint.Form:
    """How the answer will be held, as far as the client wants pictures in another form than JSON."""
    forms: dict[str, memory_footprint.Form] = {PNG: "sheet", ZIP: "files"}
    return forms.get(media_type_wanted(request.headers.get("accept", "")), "pieces")


uvicorn_protocol.limit()
Misfit.add_asgi_middleware(UntilSent)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(AccessLog)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(ErrorBodies)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(OwnScriptsOnly)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(Authentication)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(ReadableMetrics)  # type: ignore[attr-defined]
