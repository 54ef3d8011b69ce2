"""Interceptors: token and room are checked before a message is received."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from service.errors import MisfitError, Overloaded, Unauthenticated
from service.telemetry.metrics import Metrics
from service.transports.admission import Admission
from service.transports.auth import Tokens
from service.transports.grpc.health import HEALTH
from service.transports.grpc.servicer import ADMITTED, OPEN_INFERENCE, answering, method_name

# Messages above MISFIT_MAX_BODY_BYTES are refused in our words as far as this many times it, beyond in gRPC's.
RECEIVED = 2
OPEN = frozenset(f"/{OPEN_INFERENCE.full_name}/{name}" for name in ("ServerLive", "ServerReady"))
REFUSAL_SECONDS = 10.0


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token, and calls for which there is no room, before their message is received.

    Health checks need neither, also not those of the Open Inference Protocol.
    """

    def __init__(self, tokens: Tokens, admission: Admission, metrics: Metrics) -> None:
        self._tokens, self._admission, self._metrics = tokens, admission, metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if not handler_call_details.method.startswith(f"/{HEALTH}/") and handler_call_details.method not in OPEN:
            name, metadata = method_name(handler_call_details.method), handler_call_details.invocation_metadata
            try:
                self._tokens.check([str(value) for key, value in metadata or () if key == "authorization"])
                if name in ADMITTED:
                    self._admission.check()
            except (Unauthenticated, Overloaded) as error:
                return make_refusal(error, name, self._metrics)
        return await continuation(handler_call_details)


def make_refusal(error: MisfitError, name: str, metrics: Metrics) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that ends every call with `error`."""

    # As a stream of messages, none of which is read: on the wire a single one is no different.
    async def handler(contents: object, call: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with answering(name, call, metrics, REFUSAL_SECONDS):
            raise error

    return grpc.stream_stream_rpc_method_handler(handler)
