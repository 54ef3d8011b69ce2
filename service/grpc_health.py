"""gRPC's standard health service, with bounds: nobody needs a token for it.

The one of `grpcio-health-checking` receives a message of any size that the server takes, keeps the name in it for
good, and lets its streams keep the server from stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import suppress

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from service.grpc_servicer import Call

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# Streams of Watch at a time, of all clients.
MOST_WATCHES = 500
# A request fits into a packet. While gRPC waits for one, it holds what has come of it: a fast link brings a quarter of
# a gigabyte in this time.
REQUEST_SECONDS = 0.2
# A client that does not read for so long loses its stream.
ANSWER_SECONDS = 10.0


class Health:
    """Whether the server serves: one status for all of its services. All methods belong to one event loop."""

    def __init__(self, names: Collection[str]) -> None:
        """`names` are those of the services; "" means the server as a whole."""
        self._names = frozenset(names)
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed, self._is_stopped, self._watches = asyncio.Event(), False, 0

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of Check and Watch."""
        # As streams of messages: gRPC receives the message of any other method before the method runs.
        methods = {"Check": self._check, "Watch": self._watch}
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(HEALTH, handlers)

    def set(self, is_serving: bool) -> None:
        kind = health_pb2.HealthCheckResponse
        self._status = kind.SERVING if is_serving else kind.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Report that nothing is served any more, and end all streams."""
        self._is_stopped = True
        self.set(is_serving=False)

    async def _check(self, _: AsyncIterator[bytes], call: Call) -> None:
        if (name := await _name_in_request(call)) not in self._names:
            await call.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        await self._write(call, name)

    async def _watch(self, _: AsyncIterator[bytes], call: Call) -> None:
        if self._watches >= MOST_WATCHES:
            text = f"{MOST_WATCHES} streams of Watch are open already. Use Check."
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._watches += 1
        try:
            name, last = await _name_in_request(call), None
            while True:
                changed, status = self._changed, self._status
                if status != last:
                    await self._write(call, name)
                if self._is_stopped:
                    return
                last = status
                await changed.wait()
        finally:
            self._watches -= 1

    async def _write(self, call: Call, name: str) -> None:
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        status = self._status if name in self._names else unknown
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await call.write(health_pb2.HealthCheckResponse(status=status).SerializeToString())
        except TimeoutError:
            await call.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"The answer was not read in {ANSWER_SECONDS:g} s.")


async def _name_in_request(call: Call) -> str:
    """Return the service that the client asks for; "", the server as a whole, where it does not say so at once."""
    content: object = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(REQUEST_SECONDS):
            content = await call.read()
    if not isinstance(content, bytes):  # the end of the stream
        content = b""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(content).service)
    except DecodeError:
        await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message is no grpc.health.v1.HealthCheckRequest.")
