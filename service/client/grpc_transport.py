"""Calls over gRPC: options and images as messages, and messages as what HTTP's JSON would hold."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
import numpy as np
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from service.api.wire import ERROR_DETAIL, REQUEST_ID, RETRY_AFTER
from service.client.calls import Call, CallError, Images, read_images
from service.client.retries import seconds_of
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.protos.misfit.v1.misfit_pb2_grpc import MisfitServiceStub

T = TypeVar("T")
DEFAULT_PORT = 3001
CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # When to try again is up to the client's retries: the channel's own waits, up to minutes, would fail them all.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
NO_SUCH_WORD = -1
# How long a stream whose write has failed waits for the status that its peer ended it with: it is under way.
PEER_SECONDS = 5.0
# Null in HTTP's JSON where they have nothing to say; a message cannot tell that from an empty list.
NULL_IF_EMPTY = {"attributions", "minimal_set", "factors", "interactions", "heat_maps", "mean", "logvar"}
# Of these /explain says that they are empty.
EXPLAINED = ("minimal_set", "factors")


@dataclass(frozen=True)
class Prepared:
    method: str
    message: Message
    metadata: tuple[tuple[str, str], ...]


class GrpcTransport:
    """One channel. It belongs to the event loop in which it is made."""

    def __init__(self, url: str, token: str | None, ca_file: str | os.PathLike[str] | None) -> None:
        parts = urlsplit(url)
        target = parts.netloc if parts.port else f"{parts.netloc}:{DEFAULT_PORT}"
        self._authorization = (("authorization", f"Bearer {token}"),) if token else ()
        if parts.scheme == "grpcs":
            trusted = None if ca_file is None else Path(ca_file).read_bytes()
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted), CHANNEL)
        else:
            self._channel = grpc.aio.insecure_channel(target, CHANNEL)
        self._stub: Any = MisfitServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def prepare(self, call: Call[Any], request_id: str) -> Prepared:
        return Prepared(call.method, request_of(call), self._metadata(request_id))

    async def send(self, prepared: Prepared) -> Any:
        try:
            answer = await getattr(self._stub, prepared.method)(prepared.message, metadata=prepared.metadata)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        return await asyncio.to_thread(json_of, answer, prepared.method)

    async def stream(self, call: Call[Any], request_id: str) -> Any:
        stream = self._stub.ScoreStream(metadata=self._metadata(request_id))
        ending = Ending(stream)
        try:
            async for message in _messages(call):
                if stream.done():
                    break  # refused before its end: reading says why
                await stream.write(message)
            await stream.done_writing()
            pieces = [await asyncio.to_thread(json_of, piece, call.method) async for piece in stream]
        except (grpc.aio.AioRpcError, grpc.aio.InternalError) as error:
            raise error_of(await ending.error()) from error
        finally:
            stream.cancel()  # whatever else ended it; once it is done, this does nothing
        return pieces[0] | {"items": [item for piece in pieces for item in piece["items"]]}

    async def close(self) -> None:
        await self._channel.close()

    def _metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        return (*self._authorization, (REQUEST_ID, request_id))


class Ending:
    """How a stream ended, in the words of whoever ended it.

    The write that finds a call ended fails, and grpc.aio then makes that failure the call's status, before or after
    that of the peer: the last one stays. So each is noted as it comes, and the peer's is preferred.
    """

    def __init__(self, stream: Any) -> None:
        self._statuses = [_status(grpc.StatusCode.INTERNAL, None, "The stream broke off.")]
        self._peer_spoke = asyncio.Event()
        stream.add_done_callback(self._note)

    def _note(self, stream: Any) -> None:
        # A later status may already stand in its place when a coroutine that waits for this one is resumed.
        code, details, metadata = (_at_once(part()) for part in (stream.code, stream.details, stream.trailing_metadata))
        self._statuses.append(status := _status(code, metadata, details))
        if not _is_local(status):
            self._peer_spoke.set()

    async def error(self) -> grpc.aio.AioRpcError:
        """The peer's status, which is awaited for a while, or else the local one."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._peer_spoke.wait(), PEER_SECONDS)
        return next((status for status in self._statuses if not _is_local(status)), self._statuses[-1])


def _status(code: grpc.StatusCode, metadata: grpc.aio.Metadata | None, details: str | None) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata or grpc.aio.Metadata(), details)


def _is_local(status: grpc.aio.AioRpcError) -> bool:
    return status.code() == grpc.StatusCode.INTERNAL and not status.trailing_metadata()


def _at_once(answer: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that has nothing to wait for."""
    try:
        answer.send(None)
    except StopIteration as returned:
        value: T = returned.value
        return value
    raise RuntimeError("it waits")


def error_of(error: grpc.aio.AioRpcError) -> CallError:
    """Return the error of a failed call: misfit's own in the trailing metadata, else what gRPC says in its details."""
    metadata: dict[str, Any] = dict(error.trailing_metadata())
    status, retry_after = error.code(), metadata.get(RETRY_AFTER)
    if ERROR_DETAIL in metadata:
        said = pb.ErrorDetail.FromString(metadata[ERROR_DETAIL])
    else:
        said = pb.ErrorDetail(code=status.name.lower(), message=error.details() or "")
    # What is too large is RESOURCE_EXHAUSTED as well, and stays so; only of an overload is there a retry-after.
    overloaded = status == grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None
    return CallError(
        code=said.code,
        message=said.message,
        hint=said.hint,
        grpc_status=status,
        is_temporary=overloaded or status == grpc.StatusCode.UNAVAILABLE,
        retry_after=seconds_of(retry_after),
    )


# ---- Requests -----------------------------------------------------------------------------------


def request_of(call: Call[Any]) -> Message:
    """Return the message of any call but a stream's."""
    if call.method == "Decode":
        return pb.DecodeRequest(latents=[pb.Latents(values=row) for row in call.rows_of_latents])
    if call.method == "Describe":
        return pb.DescribeRequest()
    given = {} if call.images is None else {"images": _images(call.images)}
    request: Message = getattr(pb, f"{call.method}Request")(**given, **_how(call, f"{call.method}Options"))
    return request


async def _messages(call: Call[Any]) -> AsyncIterator[pb.ScoreStreamRequest]:
    first: dict[str, Any] = await asyncio.to_thread(_how, call, "ScoreOptions")
    yield pb.ScoreStreamRequest(**first)
    images = 0
    async for chunk in _each(call.chunks or ()):
        fields = await asyncio.to_thread(_images, chunk, images)
        images += len(fields["ids"])
        yield pb.ScoreStreamRequest(images=fields)


async def _each(values: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield the values. An iterator that is not asynchronous is advanced in a thread, as that may take time."""
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
    else:
        iterator = iter(values)
        while (found := await asyncio.to_thread(lambda: next(iterator, None))) is not None:
            yield found


def _how(call: Call[Any], options: str) -> dict[str, Any]:
    """Return the fields beside the images."""
    fields: dict[str, Any] = {"options": _options(getattr(pb, options)(), call.given_options)}
    if call.reference is not None:
        fields["reference"] = _images(call.reference)
    if contexts := [_struct(context.model_dump()) for context in call.contexts]:
        fields["contexts"] = contexts
    return fields


def _images(images: Images, first: int = 0) -> dict[str, Any]:
    found = read_images(images)
    if isinstance(found, np.ndarray):
        ids = [str(first + row) for row in range(len(found))]
        return {"tensor": {"shape": found.shape, "data": found.tobytes()}, "ids": ids}
    return {"files": {"contents": found.contents}, "ids": found.ids}


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _options(message: Message, given: Mapping[str, object]) -> Message:
    """Return the options message. The server checks the options; here only what has no place in the message is
    refused."""
    fields = message.DESCRIPTOR.fields_by_name
    if unknown := given.keys() - fields.keys():
        raise CallError(
            code="invalid_option",
            message=f"Unknown option: {', '.join(sorted(unknown))}.",
            hint=f"Known options are {', '.join(fields)}.",
        )
    for name, value in given.items():
        try:
            _set(message, fields[name], value)
        except (TypeError, ValueError) as error:
            raise CallError(
                code="invalid_option", message=f"{name}: {error}.", hint="GET /docs.json describes every option."
            ) from error
    return message


def _set(message: Message, field: Any, value: Any) -> None:
    if field.enum_type is not None:
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        word = field.enum_type.values_by_name.get(f"{prefix}{value}".upper())
        setattr(message, field.name, word.number if word and word.number else NO_SUCH_WORD)
    elif field.message_type is not None:  # a map
        getattr(message, field.name).update({str(key): number for key, number in dict(value).items()})
    elif field.is_repeated:  # of text, for which HTTP also takes "scale, floor hue"
        words = value.split(",") if isinstance(value, str) else value
        getattr(message, field.name).extend(str(word).strip() for word in words)
    else:
        setattr(message, field.name, str(value) if field.cpp_type == field.CPPTYPE_STRING else value)


# ---- Answers ------------------------------------------------------------------------------------


def json_of(answer: Message, method: str) -> dict[str, Any]:
    """Return the answer of `method` as HTTP's JSON, parsed."""
    found = _plain(answer)
    if method == "Explain":
        for item in found["items"]:
            if item["status"] == "ok":
                item |= {name: item[name] or [] for name in EXPLAINED}
    return found


def _plain(message: Any) -> dict[str, Any]:
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Any, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if not field.is_repeated:
        return _scalar(value)
    if isinstance(value, Mapping):
        return {key: _scalar(member) for key, member in value.items()}
    return [_scalar(member) for member in value] or (None if field.name in NULL_IF_EMPTY else [])


def _scalar(value: Any) -> Any:
    if isinstance(value, Struct):
        return {name: _of_struct(member) for name, member in value.fields.items()}
    if isinstance(value, Message):
        return _plain(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _of_struct(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _scalar(value.struct_value)
    if kind == "list_value":
        return [_of_struct(member) for member in value.list_value.values]
    return None if kind == "null_value" else getattr(value, kind)
