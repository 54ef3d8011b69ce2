"""gRPC's standard health service, with bounds. It needs no token.

The implementation of `grpcio-health-checking` receives a message of any size, keeps the name in it for good, and lets
its streams keep the server from stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from service.transports.grpc.servicer import Call

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# Streams of Watch at a time, of all clients.
MOST_WATCHES = 500
# A request fits into a packet. While gRPC waits for the rest of a message, it keeps what has come of it, up to the
# server's limit: so few wait at a time, and for so long. Whoever finds no room is answered for the server as a whole.
MOST_REQUESTS, REQUEST_SECONDS, REQUEST_BYTES = 2, 0.05, 1024
# A client that does not read for so long loses its stream.
ANSWER_SECONDS = 10.0


class Health:
    """The health of the server: one status for all of its services. All methods belong to one event loop."""

    def __init__(self, names: Collection[str]) -> None:
        """Make the health of the services `names`, which do not serve yet. "" means the server as a whole."""
        self._names = frozenset(names)
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed, self._is_stopped = asyncio.Event(), False
        self._watches = self._requests = 0

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
        if (name := await self._name_in_request(call)) not in self._names:
            await call.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        await self._write(call, self._status_of(name))

    async def _watch(self, _: AsyncIterator[bytes], call: Call) -> None:
        if self._watches >= MOST_WATCHES:
            text = f"{MOST_WATCHES} streams of Watch are open already. Use Check."
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._watches += 1
        try:
            name, last = await self._name_in_request(call), None
            while True:
                changed, status = self._changed, self._status_of(name)
                if status != last:
                    await self._write(call, status)
                if self._is_stopped:
                    return
                last = status
                await changed.wait()
        finally:
            self._watches -= 1

    def _status_of(self, name: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        return self._status if name in self._names else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

    async def _write(self, call: Call, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await call.write(health_pb2.HealthCheckResponse(status=status).SerializeToString())
        except TimeoutError:
            await call.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"The answer was not read in {ANSWER_SECONDS:g} s.")

    async def _name_in_request(self, call: Call) -> str:
        """Return the service that the client asks for, or "" (the whole server) where the request does not come at
        once.
        """
        if self._requests >= MOST_REQUESTS:
            return ""
        content: object = b""
        self._requests += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                content = await call.read()
        except TimeoutError:
            return ""
        finally:
            self._requests -= 1
        if not isinstance(content, bytes):  # the end of the stream
            return ""
        try:
            return str(health_pb2.HealthCheckRequest.FromString(content[:REQUEST_BYTES]).service)
        except DecodeError:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message is no grpc.health.v1.HealthCheckRequest.")
