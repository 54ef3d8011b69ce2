"""Protobuf messages to requests, and answers to messages, which have the fields of HTTP's JSON by the same names.

Options reach `service.api.requests.read_options` as the words that JSON would hold, so that they are checked there,
once.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from pydantic import BaseModel

from service.api import payload_limits
from service.api.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    SampleOptions,
    ScoreOptions,
    TraverseOptions,
)
from service.api.requests import Gathered, ImagesRequest, OptionsT, check_latents, read_contexts
from service.errors import InvalidInput
from service.images import arrays
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.edit_result import EditResult
from service.pipeline.explanation import Explanation
from service.pipeline.pipeline import Pipeline
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings

MessageT = TypeVar("MessageT", bound=Message)
WORDS_FOR_IMAGES = (["flagged"], ["all"])


@dataclass(frozen=True)
class Method(Generic[OptionsT]):
    """A method that takes images: the message that it is called with, its options, its work, its answer's bytes."""

    request: type[Message]
    options: type[OptionsT]
    work: Callable[[Pipeline, ImagesRequest[OptionsT]], Any]
    answer: Callable[[Any], bytes]


def parsed(kind: type[MessageT], content: bytes, settings: Settings) -> MessageT:
    """The message in `content`. Raises InvalidInput, or TooLarge where it is made of too many values."""
    payload_limits.check_message(kind.DESCRIPTOR, content, settings.max_values)
    try:
        message: MessageT = kind.FromString(content)
    except DecodeError as error:
        raise InvalidInput(
            f"The body of {len(content)} bytes is no {kind.DESCRIPTOR.full_name}: {error}.",
            "Generate the client from service/protos/misfit/v1/misfit.proto of this version.",
        ) from error
    return message


def images_request(
    message: Any, options_type: type[OptionsT], settings: Settings, sent_bytes: int, *, in_chunks: bool = False
) -> ImagesRequest[OptionsT]:
    """Return what an endpoint works on, of a message of so many bytes.

    Raises InvalidInput or one of its kinds, with the words that HTTP has for it.
    """
    fields, gathered = message.DESCRIPTOR.fields_by_name, Gathered(settings, sent_bytes)
    if message.HasField("images"):
        _add_images(gathered, "images", message.images)
    if "reference" in fields and message.HasField("reference"):
        gathered.part("reference")
        _add_images(gathered, "reference", message.reference)
    if "contexts" in fields:
        gathered.contexts += read_contexts([_plain_object(context) for context in message.contexts])
    gathered.options = _options(message.options)
    return gathered.request(options_type, in_chunks=in_chunks)


def stream_chunk(content: bytes, settings: Settings, *, is_first: bool) -> ImagesRequest[ScoreOptions]:
    """One message of a stream. Raises InvalidInput where another than the first says how to score."""
    message = parsed(pb.ScoreStreamRequest, content, settings)
    if not is_first and (late := {field.name for field, _ in message.ListFields()} - {"images"}):
        raise InvalidInput(
            f"A later message of the stream brings {', '.join(sorted(late))}.",
            "Send them in the first one: they hold for the whole stream.",
        )
    return images_request(message, ScoreOptions, settings, len(content), in_chunks=True)


def _add_images(gathered: Gathered, field: str, images: pb.Images) -> None:
    tensor = images.tensor
    is_tensor = images.WhichOneof("form") == "tensor"
    contents = arrays.read_tensor(tuple(tensor.shape), tensor.data) if is_tensor else images.files.contents
    ids: Sequence[str] = images.ids
    if ids and len(ids) != len(contents):
        raise InvalidInput(f"{len(ids)} ids came for {len(contents)} images.", "Send one for each, or none.")
    for position, content in enumerate(contents):
        gathered.add_image(field, content, ids[position] if ids else str(position))


def _options(message: Message) -> dict[str, object]:
    """The options that were given, as JSON would have them."""
    given: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.enum_type is not None:
            given[field.name] = _word(field.enum_type, value)
        elif field.message_type is not None:
            given[field.name] = dict(value)  # the only messages in options are maps
        else:
            given[field.name] = list(value) if field.is_repeated else value
    if given.get("which") in WORDS_FOR_IMAGES:
        given["which"] = given["which"][0]
    return given


def _word(enum: Any, number: int) -> str | int:
    """RESIZE_FIT to "fit". A number that the proto does not know stays one, which no option takes."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_number.get(number)
    return number if value is None else value.name.removeprefix(prefix).lower()


def _plain_object(struct: Any) -> dict[str, Any]:
    """protobuf's own json_format would make whole numbers of type int, and -0.0 a 0: every bit is to stay."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_object(value.struct_value)
    if kind == "list_value":
        return [_plain(member) for member in value.list_value.values]
    return None if kind in ("null_value", None) else getattr(value, kind)


def latents(message: pb.DecodeRequest, latent_dim: int) -> NDArray[Any]:
    """Latents (n, L) to be decoded. Raises InvalidInput or ShapeMismatch."""
    return check_latents([list(row.values) for row in message.latents], latent_dim)


def as_message(kind: type[MessageT]) -> Callable[[BaseModel], MessageT]:
    """From a response to a message of that kind; what is None is left out."""
    return lambda response: kind(**response.model_dump(exclude_unset=True))


def serialised(kind: type[Message]) -> Callable[[BaseModel | ChunkedResponse[BaseModel]], bytes]:
    """From a response to the bytes of a message of that kind, of which no more than a piece exists as objects.

    Messages one after the other are one message: what is repeated in them adds up.
    """

    def answer(found: BaseModel | ChunkedResponse[BaseModel]) -> bytes:
        parts = found.parts() if isinstance(found, ChunkedResponse) else [(found, set(type(found).model_fields))]
        values = (part.model_dump(exclude_unset=True, include=fields) for part, fields in parts)
        return b"".join(kind(**_with_files(each)).SerializeToString() for each in values)

    return answer


def _with_files(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a response, with the bytes of each picture where JSON has base64."""
    maps = (each for item in values.get("items", ()) for each in item.get("heat_maps") or ())
    for picture in (*maps, *values.get("pictures", ())):
        picture["image"] = binascii.a2b_base64(picture["image"])
    return values


def _pictured(found: Explanation | EditResult, kind: type[Message]) -> bytes:
    return serialised(kind)(found.as_json())


pictured = partial(_pictured, kind=pb.PicturesResponse)
scored_piece = serialised(pb.ScoreStreamResponse)
described = as_message(pb.DescribeResponse)
METHODS: dict[str, Method[Any]] = {
    "Score": Method(pb.ScoreRequest, ScoreOptions, Pipeline.score, serialised(pb.ScoreResponse)),
    "Explain": Method(pb.ExplainRequest, ExplainOptions, Pipeline.explain, partial(_pictured, kind=pb.ScoreResponse)),
    "Fit": Method(pb.FitRequest, FitOptions, Pipeline.fit, serialised(pb.FitResponse)),
    "Edit": Method(pb.EditRequest, EditOptions, Pipeline.edit, pictured),
    "Traverse": Method(pb.TraverseRequest, TraverseOptions, Pipeline.traverse, pictured),
    "Interpolate": Method(pb.InterpolateRequest, InterpolateOptions, Pipeline.interpolate, pictured),
    "Sample": Method(pb.SampleRequest, SampleOptions, Pipeline.sample, pictured),
    "Encode": Method(pb.EncodeRequest, EncodeOptions, Pipeline.encode, serialised(pb.EncodeResponse)),
}
