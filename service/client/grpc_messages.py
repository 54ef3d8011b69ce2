"""Messages of gRPC: what a call becomes, and what an answer becomes, which is what HTTP's JSON would hold."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from service.client.calls import Call, CallError, Images, PathNames, read_images
from service.protos.misfit.v1 import misfit_pb2 as pb

T = TypeVar("T")
# The number of no enum value: the server refuses it with the list of words that it knows.
NO_SUCH_WORD = -1
# HTTP's JSON has null where these fields have no value. A message cannot distinguish null from an empty list.
NULL_IF_EMPTY = {
    "attributions", "minimal_set", "factors", "interactions", "heat_maps", "nearest", "duplicates", "mean", "logvar"
}  # fmt: skip
# Of these, /explain answers an empty list.
EXPLAINED = ("minimal_set", "factors")

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


async def build_stream(call: Call[Any]) -> AsyncIterator[pb.ScoreStreamRequest]:
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
    elif field.is_repeated:  # of text, for which HTTP also takes "scale, floor hue", and a number
        words = str(value).split(",") if isinstance(value, str | int) else value
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
