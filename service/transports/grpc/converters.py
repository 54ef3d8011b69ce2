"""Converters: protobuf messages to requests, and answers to messages. Both have the field names of HTTP's JSON.

Options reach `service.api.requests.read_options` as JSON would hold them, so that they are checked in one place.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from pydantic import BaseModel

from service.api import payload_limits
from service.api.endpoints import ENDPOINTS, Endpoint
from service.api.latents import check_latents
from service.api.options import ScoreOptions
from service.api.requests import ImagesRequest, OptionsT, RequestBuilder
from service.api.validation import read_contexts
from service.errors import InvalidInput
from service.images import arrays
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.edit.edit_result import EditResult
from service.pipeline.explain.explanation import Explanation
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings

MessageT = TypeVar("MessageT", bound=Message)
WORDS_FOR_IMAGES = (["flagged"], ["all"])
SERVICE = pb.DESCRIPTOR.services_by_name["MisfitService"]
PICTURED = (Explanation, EditResult)  # answers that have a form of their own for each transport


@dataclass(frozen=True)
class Method:
    """An endpoint's gRPC method: the message that it is called with, and the one that it answers."""

    endpoint: Endpoint
    request: type[Message]
    answer: type[Message]

    @classmethod
    def of(cls, endpoint: Endpoint) -> Self:
        """Return the method that the proto declares for an endpoint."""
        declared = SERVICE.methods_by_name[endpoint.grpc_name]
        return cls(endpoint, getattr(pb, declared.input_type.name), getattr(pb, declared.output_type.name))

    def serialise(self, answer: Any) -> bytes:
        """Return the pipeline's answer as the bytes of a message."""
        return make_serialiser(self.answer)(answer.as_json() if isinstance(answer, PICTURED) else answer)


def parse_message(kind: type[MessageT], content: bytes, settings: Settings) -> MessageT:
    """Return the message in `content`. Raises InvalidInput, or TooLarge where it holds too many values."""
    payload_limits.check_message(kind.DESCRIPTOR, content, settings.max_values)
    try:
        message: MessageT = kind.FromString(content)
    except DecodeError as error:
        raise InvalidInput(
            f"The body of {len(content)} bytes is no {kind.DESCRIPTOR.full_name}: {error}.",
            "Generate the client from service/protos/misfit/v1/misfit.proto of this version.",
        ) from error
    return message


def read_images_request(
    message: Any,
    options_type: type[OptionsT],
    settings: Settings,
    sent_bytes: int,
    *,
    in_chunks: bool = False,
    first: int = 0,
) -> ImagesRequest[OptionsT]:
    """Return the request that a message of `sent_bytes` bytes makes. Images without ids are numbered from `first`.

    Raises InvalidInput or one of its kinds, with HTTP's texts.
    """
    fields, builder = message.DESCRIPTOR.fields_by_name, RequestBuilder(settings, sent_bytes)
    if message.HasField("images"):
        _add_images(builder, "images", message.images, first)
    if "reference" in fields and message.HasField("reference"):
        builder.get_uploads("reference")
        _add_images(builder, "reference", message.reference)
    if "contexts" in fields:
        builder.contexts += read_contexts([_plain_object(context) for context in message.contexts])
    builder.options = _read_options(message.options)
    return builder.build(options_type, in_chunks=in_chunks)


def read_stream_chunk(
    content: bytes, settings: Settings, *, is_first: bool, first: int = 0
) -> ImagesRequest[ScoreOptions]:
    """Return the request that one message of a stream makes, after `first` images of the messages before it.

    Raises InvalidInput where a message after the first says how to score.
    """
    message = parse_message(pb.ScoreStreamRequest, content, settings)
    if not is_first and (late := {field.name for field, _ in message.ListFields()} - {"images"}):
        raise InvalidInput(
            f"A later message of the stream brings {', '.join(sorted(late))}.",
            "Send them in the first one: they hold for the whole stream.",
        )
    return read_images_request(message, ScoreOptions, settings, len(content), in_chunks=True, first=first)


def _add_images(builder: RequestBuilder, field: str, images: pb.Images, first: int = 0) -> None:
    tensor = images.tensor
    is_tensor = images.WhichOneof("form") == "tensor"
    contents: Sequence[Any] = images.files.contents
    if is_tensor:
        builder.shapes.append(tuple(tensor.shape))
        contents = arrays.read_tensor(tuple(tensor.shape), tensor.data, tensor.dtype)  # type: ignore[assignment]
    ids: Sequence[str] = images.ids
    if ids and len(ids) != len(contents):
        raise InvalidInput(f"{len(ids)} ids came for {len(contents)} images.", "Send one for each, or none.")
    for position, content in enumerate(contents):
        builder.add_image(field, content, ids[position] if ids else str(first + position))


def _read_options(message: Message) -> dict[str, object]:
    """Return the options that the message sets, as JSON would hold them."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.enum_type is not None:
            values[field.name] = _word(field.enum_type, value)
        elif field.message_type is not None:
            values[field.name] = dict(value)  # the only messages in options are maps
        else:
            values[field.name] = list(value) if field.is_repeated else value
    if values.get("which") in WORDS_FOR_IMAGES:
        values["which"] = values["which"][0]
    return values


def _word(enum: Any, number: int) -> str | int:
    """Return the option's word for an enum's number: RESIZE_FIT is "fit". An unknown number stays one, and is refused
    later.
    """
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_number.get(number)
    return number if value is None else value.name.removeprefix(prefix).lower()


def _plain_object(struct: Any) -> dict[str, Any]:
    """Return a Struct as a dict of floats.

    protobuf's own json_format would turn whole numbers into int, and -0.0 into 0: a context keeps every bit.
    """
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_object(value.struct_value)
    if kind == "list_value":
        return [_plain(member) for member in value.list_value.values]
    return None if kind in ("null_value", None) else getattr(value, kind)


def read_latents(message: pb.DecodeRequest, latent_dim: int) -> NDArray[Any]:
    """Return the latents (n, L) to be decoded. Raises InvalidInput or ShapeMismatch."""
    return check_latents([list(row.values) for row in message.latents], latent_dim)


def make_serialiser(kind: type[Message]) -> Callable[[BaseModel | ChunkedResponse[BaseModel]], bytes]:
    """Return a function from a response to the bytes of a message of that kind.

    Only one piece of the response exists as objects at a time: protobuf messages one after the other are one message,
    whose repeated fields add up.
    """

    def serialise(response: BaseModel | ChunkedResponse[BaseModel]) -> bytes:
        parts = (
            response.parts()
            if isinstance(response, ChunkedResponse)
            else [(response, set(type(response).model_fields))]
        )
        values = (part.model_dump(exclude_unset=True, include=fields) for part, fields in parts)
        return b"".join(kind(**_as_message_fields(fields)).SerializeToString() for fields in values)

    return serialise


def _as_message_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a response as a message has them: pictures as bytes, each set of duplicates a message."""
    maps = (heat_map for item in values.get("items", ()) for heat_map in item.get("heat_maps") or ())
    for picture in (*maps, *values.get("pictures", ())):
        picture["image"] = binascii.a2b_base64(picture["image"])
    # A message has no lists of lists.
    if duplicates := values.get("duplicates"):
        values["duplicates"] = [{"members": members} for members in duplicates]
    return values


serialise_scores = make_serialiser(pb.ScoreStreamResponse)
METHODS: dict[str, Method] = {endpoint.grpc_name: Method.of(endpoint) for endpoint in ENDPOINTS.values()}
