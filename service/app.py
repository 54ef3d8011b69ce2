"""The BentoML services: `Misfit` is the API, and runs the networks where it is the only process that needs them.

Where several API workers share the networks, or MISFIT_INFERENCE_PROCESS says so, `Inference` runs them in a process of
its own. Only the networks merge the rows of several requests: every statistic is computed per request, once its rows
are back.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.bundle import store
from service.bundle.store import Bundle
from service.decoding.pool import DecodePool
from service.errors import BundleError
from service.hosting import circus_sockets, metric_folders, shutdown, uvicorn_protocol
from service.hosting.routes import Routes
from service.hosting.workers import Api, Worker, get_addresses
from service.inference import precision
from service.inference.hardware import has_gpu
from service.inference.wire_format import pack
from service.pipeline.pipeline import Pipeline
from service.settings import Settings, describe_problems, warn_of_unknown_variables
from service.telemetry import logs
from service.telemetry.batch_metrics import BatchMetrics
from service.telemetry.late_writes import late_writes
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import NOT_TRACED
from service.transports import memory_footprint
from service.transports.admission import Admission
from service.transports.dispatch import Dispatcher
from service.transports.grpc.port import claim_port
from service.transports.http.middleware import AccessLog, Envelope

if TYPE_CHECKING:
    from service.inference.local import LocalNetworks
    from service.inference.remote import RemoteNetworks
    from service.transports.grpc.server import Server

# Of calls from one service to the other. Longer than any MISFIT_TIMEOUT_SECONDS in earnest: that one answers in our own
# words.
TRANSPORT_TIMEOUT = 3600
# By default BentoML closes the connections to a service after 100 calls, whatever is still under way on them.
NEVER_RECONNECT = {"max_requests": 2**31, "max_age": 1e9}
# glibc gives threads memory from arenas, and keeps in each what was freed there. By default there are up to 8 for every
# CPU: they take 60 MiB more after some load, and save no time.
ARENAS = "2"
# `service.telemetry.logs` has a line for each request.
NO_ACCESS_LOG = {"access": {"enabled": False}}
TRACING = {"excluded_urls": list(NOT_TRACED)}


def open_networks(bundle: Bundle, settings: Settings, name: str = "") -> LocalNetworks:
    """Return the networks of a bundle, run in this process, and measured by its metrics. `name` is the bundle's."""
    from service.inference.local import LocalNetworks  # with ONNX Runtime, which the supervisor does not need

    metrics = BatchMetrics(name=name)
    networks = LocalNetworks(bundle, require_gpu=settings.require_gpu, hooks=metrics)
    metrics.report_bundle(bundle, networks.provider)
    return networks


@bentoml.service(
    workers=1,
    threads=1,
    traffic={"timeout": TRANSPORT_TIMEOUT},
    runner_connection=NEVER_RECONNECT,
    logging=NO_ACCESS_LOG,
    tracing=TRACING,
    service_class=Worker,
)
class Inference:
    """The networks of one bundle, for all API workers."""

    def __init__(self) -> None:
        settings = Settings()
        self.networks = open_networks(precision.load(settings.bundle_directory, settings.precision), settings)

    @bentoml.on_startup
    async def outlive_api(self) -> None:
        """Hold this process's lock, and stop only after the API's process has released its own."""
        if (own_lock := shutdown.open_lock(get_addresses(), shutdown.INFERENCE)) is not None:
            shutdown.hold_lock(own_lock)
        if (api_lock := shutdown.open_lock(get_addresses(), shutdown.API)) is not None:
            shutdown.stop_after_holders(api_lock)

    @bentoml.api
    async def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return await self.networks.encode(images)

    @bentoml.api
    async def encode_checked(self, images: NDArray[np.uint8]) -> NDArray[np.void]:
        return pack(await self.networks.encode_checked(images))

    @bentoml.api
    async def encode_screened(self, images: NDArray[np.uint8]) -> NDArray[np.void]:
        return pack(await self.networks.encode_screened(images))

    @bentoml.api
    async def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        return await self.networks.decode(latents)

    @bentoml.api
    async def saliency(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return await self.networks.saliency(images)

    @bentoml.api
    async def provider(self) -> str:
        return self.networks.provider


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
        os.environ.setdefault("MALLOC_ARENA_MAX", ARENAS)  # of the processes that start from here
        warn_of_unknown_variables()
        try:
            settings = Settings()
            logs.configure(settings.log_format, "supervisor")
            for name, directory in {"": settings.bundle_directory, **settings.more_bundles}.items():
                memory_footprint.check_full_request(settings.of_bundle(name), store.load(directory, settings.precision))
        except ValidationError as error:
            raise SystemExit(f"misfit cannot start: {describe_problems(error)}") from None
        except (BundleError, ValueError) as error:
            raise SystemExit(f"misfit cannot start: {error}") from None
        if settings.bundles and Misfit.dependencies:  # type: ignore[attr-defined]
            raise SystemExit(
                "misfit cannot start: MISFIT_BUNDLES needs the networks in the API's process. Serve one API worker, "
                "and leave MISFIT_INFERENCE_PROCESS out."
            )
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
        loaded = precision.load(self.settings.bundle_directory, self.settings.precision)
        self.networks: LocalNetworks | RemoteNetworks
        if "Inference" in get_addresses():
            from service.inference.remote import RemoteNetworks  # with aiohttp, which the supervisor does not need

            self.networks = RemoteNetworks(self.inference, loaded.manifest.capabilities, watch.has_ended)
        else:
            self.networks = open_networks(loaded, self.settings)
        self.metrics = {"": Metrics(loaded)}
        self.decoder = DecodePool(self.settings)
        limits = self.settings.max_rows_in_flight, self.settings.max_bytes_in_flight
        self.admission = Admission(*limits)  # of all bundles together
        self.metrics[""].follow(self.admission.in_flight)
        self.dispatchers = {"": self._make_dispatcher(loaded, self.networks, "")}
        for name, directory in self.settings.more_bundles.items():
            bundle = precision.load(directory, self.settings.precision)
            self.metrics[name] = Metrics(bundle, name=name)
            networks = open_networks(bundle, self.settings, name)
            self.dispatchers[name] = self._make_dispatcher(bundle, networks, name)

    def _make_dispatcher(self, bundle: Bundle, networks: LocalNetworks | RemoteNetworks, name: str) -> Dispatcher:
        """Return the dispatcher of one bundle: its pipeline and metrics, and the room and decoders of all."""
        metrics = self.metrics[name]
        pipeline = Pipeline(bundle, networks, self.settings.of_bundle(name), metrics, self.decoder)
        return Dispatcher(pipeline, self.admission, metrics, networks.get_provider)

    @bentoml.on_startup
    async def start(self) -> None:
        self.decoder.start()
        self.grpc: Server | None = None
        if self.settings.grpc_port:
            from service.transports.grpc.server import Server  # with grpc, which the supervisor does not need

            self.grpc = Server(self.dispatchers, self._is_ready, self.settings)
            await self.grpc.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        if self.grpc is not None:
            await self.grpc.stop()
        self.decoder.close()
        late_writes.write()

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
Misfit.add_asgi_middleware(AccessLog)  # type: ignore[attr-defined]
Misfit.add_asgi_middleware(Envelope)  # type: ignore[attr-defined]
