"""The BentoML services: `Inference` runs the networks, `Misfit` is the API in front of it.

Only row-wise work is batchable: `Inference` merges the rows of all requests as traffic has it, and
every statistic is computed in `Misfit`, per request, once its rows are back.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.bundle import store
from service.decoding.pool import DecodePool
from service.errors import BundleError
from service.hosting import circus_sockets, metric_folders, shutdown, uvicorn_protocol
from service.hosting.routes import Routes
from service.hosting.workers import Api, Batching, get_addresses
from service.inference.hardware import has_gpu
from service.inference.onnx_runtime import OnnxNetworks
from service.inference.remote import RemoteNetworks
from service.inference.wire_format import pack
from service.pipeline.pipeline import Pipeline
from service.settings import Settings, describe_problems, warn_of_unknown_variables
from service.telemetry import logs
from service.telemetry.batch_metrics import MAX_ADAPTIVE_BATCH, batch_metrics
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import NOT_TRACED
from service.transports import memory_footprint
from service.transports.admission import Admission
from service.transports.dispatch import Dispatcher
from service.transports.grpc.port import claim_port
from service.transports.grpc.server import Server
from service.transports.http.middleware import (
    AccessLog,
    Authentication,
    ContentSecurityPolicy,
    ErrorBodies,
    ReadableMetrics,
    UntilSent,
)

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
    """The networks of one bundle, which run the rows of all requests in adaptive batches.

    The rows that come together are those of any requests: no statistic may be computed here.
    """

    def __init__(self) -> None:
        settings = Settings()
        bundle = store.load(settings.bundle_directory)
        self.networks = OnnxNetworks(bundle, require_gpu=settings.require_gpu)
        batch_metrics().report_bundle(bundle, self.networks.provider)

    @bentoml.on_startup
    async def outlive_api(self) -> None:
        """Hold this process's lock, and stop only after the API's process has released its own."""
        if (own_lock := shutdown.open_lock(get_addresses(), shutdown.INFERENCE)) is not None:
            shutdown.hold_lock(own_lock)
        if (api_lock := shutdown.open_lock(get_addresses(), shutdown.API)) is not None:
            shutdown.stop_after_holders(api_lock)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._batch("encode", len(images)):
            return self.networks.encode(images)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def encode_checked(self, images: NDArray[np.uint8]) -> NDArray[np.void]:
        with self._batch("encode_checked", len(images)):
            return pack(self.networks.encode_checked(images))

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        with self._batch("decode", len(latents)):
            return self.networks.decode(latents)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def saliency(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._batch("saliency", len(images)):
            return self.networks.saliency(images)

    @bentoml.api
    def provider(self) -> str:
        return self.networks.provider

    def _batch(self, network: str, rows: int) -> AbstractContextManager[None]:
        return batch_metrics().adaptive_batch(network, rows, self.networks.computed_rows(rows))


@bentoml.service(
    workers=1,
    logging=NO_ACCESS_LOG,
    tracing=TRACING,
    service_class=Api,
)
class Misfit(Routes):
    """Finds the images that do not belong in their batch."""

    inference = bentoml.depends(Inference)

    @bentoml.on_deployment
    def _refuse_early() -> None:
        """Check the settings before any process starts: print one line instead of a trace from each process."""
        circus_sockets.close_control_sockets()
        metric_folders.remove_folders()
        shutdown.name_supervisor()
        warn_of_unknown_variables()
        try:
            settings = Settings()
            logs.configure(settings.log_format, "supervisor")
            memory_footprint.check_full_request(settings, store.load(settings.bundle_directory))
        except ValidationError as error:
            raise SystemExit(f"misfit cannot start: {describe_problems(error)}") from None
        except (BundleError, ValueError) as error:
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
        watch = shutdown.Watch(shutdown.open_lock(get_addresses(), shutdown.INFERENCE))
        if (lock := shutdown.open_lock(get_addresses(), shutdown.API)) is not None:
            shutdown.hold_lock(lock)
            get_addresses().update(shutdown.name_by_descriptor(get_addresses()))
        self.settings = Settings()
        loaded = store.load(self.settings.bundle_directory)
        self.networks = RemoteNetworks(self.inference, loaded.manifest.capabilities, watch.has_ended)
        self.metrics = Metrics(loaded)
        self.decoder = DecodePool(self.settings)
        self.pipeline = Pipeline(loaded, self.networks, self.settings, self.metrics, self.decoder)
        limits = self.settings.max_rows_in_flight, self.settings.max_bytes_in_flight
        admission = Admission(*limits, self.metrics.report_in_flight)
        self.dispatcher = Dispatcher(self.pipeline, admission, self.metrics, self.networks.provider)

    @bentoml.on_startup
    async def start(self) -> None:
        self.decoder.start()
        self.grpc: Server | None = None
        if self.settings.grpc_port:
            self.grpc = Server(self.dispatcher, self._is_ready, self.settings)
            await self.grpc.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        if self.grpc is not None:
            await self.grpc.stop()
        self.decoder.close()

    async def __is_alive__(self) -> bool:
        """Return whether Inference answers and images can be decoded. Otherwise the probe fails, and all processes
        restart.
        """
        return await self._is_ready()

    async def __is_ready__(self) -> bool:
        return await self._is_ready()

    async def _is_ready(self) -> bool:
        return all(await asyncio.gather(self.networks.is_ready(), self.decoder.is_alive()))


metric_folders.choose_own_folder()
uvicorn_protocol.bound_connections()
Misfit.add_asgi_middleware(UntilSent)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(AccessLog)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(ErrorBodies)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(ContentSecurityPolicy)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(Authentication)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(ReadableMetrics)  # type: ignore[attr-defined]
