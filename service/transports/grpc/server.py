"""The gRPC server, in the process and event loop of the HTTP API: its port, TLS, tokens, health and reflection."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import grpc
from grpc_reflection.v1alpha import reflection

from service.settings import Settings
from service.transports.auth import Tokens
from service.transports.dispatch import Dispatcher
from service.transports.grpc.bundle_handlers import BundleHandlers
from service.transports.grpc.health import HEALTH, Health
from service.transports.grpc.interceptors import RECEIVED, AdmissionInterceptor
from service.transports.grpc.port import bracket_host
from service.transports.grpc.servicer import SERVICES
from service.transports.open_inference.grpc import InferenceServicer

HEALTH_SECONDS = 1.0
MOST_INT32 = 2**31 - 1
# A connection that has not begun to speak HTTP/2, or TLS, is ended.
HANDSHAKE_SECONDS = 10.0
# So is one without a call, and one of this age once its calls have ended: clients make a new one with their next call,
# and notice nothing.
IDLE_SECONDS, AGE_SECONDS = 60.0, 900.0
# A connection that has been silent for so long is asked whether its client still lives, who has to say so in time.
PING_SECONDS, PING_ANSWER_SECONDS = 60.0, 20.0
# Calls of one connection at a time. Of more, a client keeps some back, and some are refused (UNAVAILABLE).
MOST_CALLS = 1000
# The share of the process's descriptors that gRPC's connections may take; HTTP's is in
# `service.hosting.uvicorn_protocol`.
DESCRIPTOR_SHARE = 0.2


class Server:
    """The gRPC server of one API worker. All of its methods belong to one event loop."""

    def __init__(
        self, dispatchers: Mapping[str, Dispatcher], is_ready: Callable[[], Awaitable[bool]], settings: Settings
    ) -> None:
        """Make the server of some bundles by name; "" is that of calls which name none."""
        dispatcher = dispatchers[""]
        self._is_ready = is_ready
        self._grace = settings.timeout_seconds
        self._health = Health(("", *SERVICES))
        self._server = grpc.aio.server(
            interceptors=(
                AdmissionInterceptor(Tokens(settings.tokens_file), dispatcher.admission, dispatcher.metrics),
            ),
            options=(
                ("grpc.so_reuseport", 1),  # every API worker listens on the port
                ("grpc.max_receive_message_length", min(RECEIVED * settings.max_body_bytes, MOST_INT32)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", MOST_CALLS),
                ("grpc.max_allowed_incoming_connections", get_max_connections()),
                ("grpc.server_handshake_timeout_ms", round(1000 * HANDSHAKE_SECONDS)),
                ("grpc.max_connection_idle_ms", round(1000 * IDLE_SECONDS)),
                ("grpc.max_connection_age_ms", round(1000 * AGE_SECONDS)),
                ("grpc.max_connection_age_grace_ms", round(1000 * settings.timeout_seconds)),
                ("grpc.keepalive_time_ms", round(1000 * PING_SECONDS)),
                ("grpc.keepalive_timeout_ms", round(1000 * PING_ANSWER_SECONDS)),
                # Unpacked before anything can be counted, half a megabyte would take half a gigabyte.
                ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression.value),
            ),
        )
        inference = InferenceServicer(dispatchers, is_ready)
        self._server.add_generic_rpc_handlers(
            (BundleHandlers(dispatchers), inference.handlers(), self._health.handler())
        )
        reflection.enable_server_reflection((*SERVICES, HEALTH, reflection.SERVICE_NAME), self._server)
        address = f"{bracket_host(settings.grpc_host)}:{settings.grpc_port}"
        if settings.grpc_tls_cert is None or settings.grpc_tls_key is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, _load_credentials(settings.grpc_tls_key, settings.grpc_tls_cert))

    async def start(self) -> None:
        await self._server.start()
        self._readiness_task = asyncio.create_task(self._follow_readiness())

    async def stop(self) -> None:
        """Take no more calls, and return once those in flight are finished."""
        self._readiness_task.cancel()
        self._health.stop()
        await self._server.stop(self._grace)

    async def _follow_readiness(self) -> None:
        """Report SERVING as long as /readyz answers 200. The report is at most HEALTH_SECONDS old."""
        while True:
            self._health.set(await self._is_ready())
            await asyncio.sleep(HEALTH_SECONDS)


def get_max_connections() -> int:
    """Return how many connections the server may have at a time, at least 1."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(max(int(descriptors * DESCRIPTOR_SHARE), 1), MOST_INT32)


def _load_credentials(key: Path, certificate: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
