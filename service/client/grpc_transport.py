"""Calls over gRPC: one channel, streams, and errors. `service.client.grpc_messages` makes and reads the messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from service.api.wire import ERROR_DETAIL, REQUEST_ID, RETRY_AFTER
from service.client.calls import IS_IT_RUNNING, Call, CallError
from service.client.grpc_messages import build_message, build_stream, message_to_json
from service.client.retries import parse_retry_after
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.protos.misfit.v1.misfit_pb2_grpc import MisfitServiceStub

T = TypeVar("T")
DEFAULT_PORT = 3001
CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The channel waits up to minutes before it connects again. Every retry of the client would fail in that time.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
# Words of gRPC's about a server that speaks something else, and what they mean.
WRONG_SERVER = {
    "Failed parsing HTTP/2": "This is a port of HTTP: use http://, or the port of gRPC, by default 3001.",
    "WRONG_VERSION_NUMBER": "The server does not speak TLS there: use grpc://.",
}
# After a write to a stream has failed, the server's status is still on its way. Wait for it this many seconds.
PEER_SECONDS = 5.0


@dataclass(frozen=True)
class Prepared:
    """A message that is ready to be sent, and the options that it was made from."""

    method: str
    options: Mapping[str, object]
    message: Message
    metadata: tuple[tuple[str, str], ...]


class GrpcTransport:
    """Sends calls over one channel. It belongs to the event loop in which it is made."""

    def __init__(self, url: str, token: str | None, ca_file: str | os.PathLike[str] | None) -> None:
        parts = urlsplit(url)
        target = parts.netloc if parts.port else f"{parts.netloc}:{DEFAULT_PORT}"
        self._authorization = (("authorization", f"Bearer {token}"),) if token else ()
        if parts.scheme == "grpcs":
            certificates = None if ca_file is None else Path(ca_file).read_bytes()
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(certificates), CHANNEL)
        else:
            self._channel = grpc.aio.insecure_channel(target, CHANNEL)
        self._stub: Any = MisfitServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def prepare(self, call: Call[Any], request_id: str) -> Prepared:
        return Prepared(call.method, call.specified_options, build_message(call), self._metadata(request_id))

    async def send(self, prepared: Prepared) -> Any:
        try:
            answer = await getattr(self._stub, prepared.method)(prepared.message, metadata=prepared.metadata)
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from error
        return await asyncio.to_thread(message_to_json, answer, prepared.method, prepared.options)

    async def stream(self, call: Call[Any], request_id: str) -> Any:
        stream = self._stub.ScoreStream(metadata=self._metadata(request_id))
        ending = Ending(stream)
        try:
            async for message in build_stream(call):
                if stream.done():
                    break  # the server has refused it: reading raises the reason
                await stream.write(message)
            await stream.done_writing()
            pieces = [
                await asyncio.to_thread(message_to_json, piece, call.method, call.specified_options)
                async for piece in stream
            ]
        except (grpc.aio.AioRpcError, grpc.aio.InternalError) as error:
            raise read_error(await ending.error()) from error
        finally:
            stream.cancel()  # also after an error of the caller's chunks; it does nothing once the stream is done
        return pieces[0] | {"items": [item for piece in pieces for item in piece["items"]]}

    async def close(self) -> None:
        await self._channel.close()

    def _metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        return (*self._authorization, (REQUEST_ID, request_id))


class Ending:
    """The status with which a stream ended: the server's, if there is one.

    A write to a call that has ended fails. grpc.aio then makes that failure the status of the call, before or after the
    server's status, and only the last one stays. So this notes each status as it comes, and prefers the server's.
    """

    def __init__(self, stream: Any) -> None:
        self._statuses = [_status(grpc.StatusCode.INTERNAL, None, "The stream broke off.")]
        self._peer_spoke = asyncio.Event()
        stream.add_done_callback(self._note)

    def _note(self, stream: Any) -> None:
        # Read it now: once a waiting coroutine resumes, a later status may have replaced it.
        code, details, metadata = (_at_once(part()) for part in (stream.code, stream.details, stream.trailing_metadata))
        self._statuses.append(status := _status(code, metadata, details))
        if not _is_local(status):
            self._peer_spoke.set()

    async def error(self) -> grpc.aio.AioRpcError:
        """Return the server's status if it comes within PEER_SECONDS, else the local one."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._peer_spoke.wait(), PEER_SECONDS)
        return next((status for status in self._statuses if not _is_local(status)), self._statuses[-1])


def _status(code: grpc.StatusCode, metadata: grpc.aio.Metadata | None, details: str | None) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata or grpc.aio.Metadata(), details)


def _is_local(status: grpc.aio.AioRpcError) -> bool:
    return status.code() == grpc.StatusCode.INTERNAL and not status.trailing_metadata()


def _at_once(answer: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits. Raises RuntimeError if it waits."""
    try:
        answer.send(None)
    except StopIteration as returned:
        value: T = returned.value
        return value
    raise RuntimeError("it waits")


def read_error(error: grpc.aio.AioRpcError) -> CallError:
    """Return the error of a failed call: misfit's own from the trailing metadata, else gRPC's details."""
    metadata: dict[str, Any] = dict(error.trailing_metadata())
    status, retry_after = error.code(), metadata.get(RETRY_AFTER)
    message = error.details() or ""
    hint = next((hint for words, hint in WRONG_SERVER.items() if words in message), None)
    if ERROR_DETAIL in metadata:
        detail = pb.ErrorDetail.FromString(metadata[ERROR_DETAIL])
    else:
        usual = IS_IT_RUNNING if status == grpc.StatusCode.UNAVAILABLE else ""
        detail = pb.ErrorDetail(code=status.name.lower(), message=message, hint=hint or usual)
    # RESOURCE_EXHAUSTED also means a message that is too large, which no retry helps. Only overload has a retry-after.
    overloaded = status == grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None
    return CallError(
        code=detail.code,
        message=detail.message,
        hint=detail.hint,
        grpc_status=status,
        is_temporary=overloaded or (status == grpc.StatusCode.UNAVAILABLE and hint is None),
        retry_after=parse_retry_after(retry_after),
    )
