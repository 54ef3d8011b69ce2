"""Calls over gRPC: options and images become messages, and messages become what HTTP's JSON would hold."""

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
from service.client.calls import IS_IT_RUNNING, Call, CallError, Images, PathNames, read_images
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
# The number of no enum value: the server refuses it with the list of words that it knows.
NO_SUCH_WORD = -1
# Words of gRPC's about a server that speaks something else, and what they mean.
WRONG_SERVER = {
    "Failed parsing HTTP/2": "This is a port of HTTP: use http://, or the port of gRPC, by default 3001.",
    "WRONG_VERSION_NUMBER": "The server does not speak TLS there: use grpc://.",
}
# After a write to a stream has failed, the server's status is still on its way. Wait for it this many seconds.
PEER_SECONDS = 5.0
# HTTP's JSON has null where these fields have no value. A message cannot distinguish null from an empty list.
NULL_IF_EMPTY = {
    "attributions", "minimal_set", "factors", "interactions", "heat_maps", "nearest", "duplicates", "mean", "logvar"
}  # fmt: skip
# Of these, /explain answers an empty list.
EXPLAINED = ("minimal_set", "factors")


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
            async for message in _build_stream(call):
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


# ---- Requests -----------------------------------------------------------------------------------


def build_message(call: Call[Any]) -> Message:
    """Return the message of any call except a stream's."""
    if call.method == "Decode":
        return pb.DecodeRequest(latents=[pb.Latents(values=row) for row in call.rows_of_latents])
    if call.method == "Describe":
        return pb.DescribeRequest()
    images = {} if call.images is None else {"images": _build_images(call.images)}
    fields = _build_other_fields(call, f"{call.method}Options")
    message: Message = getattr(pb, f"{call.method}Request")(**images, **fields)
    return message


async def _build_stream(call: Call[Any]) -> AsyncIterator[pb.ScoreStreamRequest]:
    """Yield the messages of a stream: options, reference and contexts first, then one message for each chunk."""
    first: dict[str, Any] = await asyncio.to_thread(_build_other_fields, call, "ScoreOptions")
    yield pb.ScoreStreamRequest(**first)
    images, names = 0, PathNames()
    async for chunk in _iterate(call.chunks or ()):
        fields = await asyncio.to_thread(_build_images, chunk, images, names)
        images += len(fields["ids"])
        yield pb.ScoreStreamRequest(images=fields)


async def _iterate(values: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield the values. A plain iterator advances in a thread, since its next value may take time."""
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
    else:
        iterator = iter(values)
        while (item := await asyncio.to_thread(lambda: next(iterator, None))) is not None:
            yield item


def _build_other_fields(call: Call[Any], options_type: str) -> dict[str, Any]:
    """Return the fields of a message except its images: options, reference and contexts."""
    fields: dict[str, Any] = {"options": _set_options(getattr(pb, options_type)(), call.specified_options)}
    if call.reference is not None:
        fields["reference"] = _build_images(call.reference)
    if contexts := [_struct(context.model_dump()) for context in call.contexts]:
        fields["contexts"] = contexts
    return fields


def _build_images(images: Images, first: int = 0, names: PathNames | None = None) -> dict[str, Any]:
    """Return the fields of a message Images. Ids of images without a name count from `first`."""
    content = read_images(images, first, names)
    if isinstance(content, np.ndarray):
        ids = [str(first + row) for row in range(len(content))]
        samples = content.astype(content.dtype.newbyteorder("<"), copy=False)
        dtype = "" if content.dtype == np.uint8 else content.dtype.name
        return {"tensor": {"shape": content.shape, "data": samples.tobytes(), "dtype": dtype}, "ids": ids}
    return {"files": {"contents": content.contents}, "ids": content.ids}


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _set_options(message: Message, options: Mapping[str, object]) -> Message:
    """Set the fields of an options message, and return it.

    Raises CallError for an option that has no field, or that its field cannot hold. The server checks all else.
    """
    fields = message.DESCRIPTOR.fields_by_name
    if unknown := options.keys() - fields.keys():
        raise CallError(
            code="invalid_option",
            message=f"Unknown option: {', '.join(sorted(unknown))}.",
            hint=f"Known options are {', '.join(fields)}.",
        )
    for name, value in options.items():
        try:
            _set_field(message, fields[name], value)
        except (TypeError, ValueError) as error:
            raise CallError(
                code="invalid_option", message=f"{name}: {error}.", hint="GET /docs.json describes every option."
            ) from error
    return message


def _set_field(message: Message, field: Any, value: Any) -> None:
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


def message_to_json(answer: Message, method: str, options: Mapping[str, object]) -> dict[str, Any]:
    """Return the answer of `method` to a call with `options` as HTTP's JSON, parsed."""
    content = _plain(answer)
    lists = [*(EXPLAINED if method == "Explain" else ()), *(["nearest"] if options.get("nearest") else [])]
    if lists:
        for item in content["items"]:
            if item["status"] == "ok":
                item |= {name: item[name] or [] for name in lists}
    if options.get("duplicates") == "groups":
        content["duplicates"] = [each["members"] for each in content["duplicates"] or ()]
    return content


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
