"""Inference requests to requests of an endpoint: which tensors are images, which parameters are options.

Both transports read their own form to an `InferRequest`. From there on there is one way.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from service.api.latents import check_latents
from service.api.options import ScoreOptions
from service.api.requests import ImagesRequest, RequestBuilder
from service.api.uploads import mistaken_uploads
from service.core.types import Float64Array
from service.errors import InvalidInput, InvalidOption, quoted
from service.images import arrays
from service.settings import Settings
from service.transports.open_inference.models import Model, names_of
from service.transports.open_inference.tensors import BYTES, DTYPES, Tensor

# Parameters that are no options: how the answer is written, what MLServer's and Triton's clients add.
BINARY_OUTPUT = "binary_data_output"
IGNORED = frozenset({BINARY_OUTPUT, "content_type", "headers", "priority", "timeout"})
# Parameters of one tensor.
BINARY_SIZE, BINARY, CONTENT_TYPE = "binary_data_size", "binary_data", "content_type"
INPUT_PARAMETERS = frozenset({BINARY_SIZE, CONTENT_TYPE})
OUTPUT_PARAMETERS = frozenset({BINARY, CONTENT_TYPE})
# Elements of tensors as numbers of JSON or of a message: so many times what other bodies may be made of.
MOST_ELEMENTS = 4
# Of such a number, or of an empty list: its place in a list, itself, and its place in an array.
VALUE_BYTES = 72
# What image files begin with in base64; none begins so itself.
BASE64_HEADS = tuple(head.encode() for head in mistaken_uploads.BASE64_HEADS)
LONGEST_HEAD = max(map(len, BASE64_HEADS))
# Options that an output which is asked for sets, and the values of options with which there is no such output.
SET_BY_OUTPUT = {"attributions": "all", "duplicates": "groups"}
RULES_OUT: dict[str, str | int] = {"attributions": "none", "duplicates": "off", "foreign": "off", "nearest": 0}


@dataclass(frozen=True)
class InferRequest:
    """An inference request, as either transport reads it.

    parameters  of the whole request
    outputs     the names of the outputs that are asked for; none where the client leaves that to the server
    binary      the names of those that are to be bytes, over HTTP
    raw         whether the tensors came as bytes, over gRPC
    """

    id: str
    parameters: Mapping[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[str] = ()
    binary: frozenset[str] = field(default=frozenset())
    raw: bool = False


def check_parameters(parameters: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    """Raise InvalidInput where a tensor has a parameter that would change its meaning, and is not known."""
    if unknown := sorted(parameters.keys() - known):
        raise InvalidInput(
            f"{where} has the parameter {quoted(unknown[0])}, expected only {', '.join(sorted(known))}.",
            "Classification and shared memory are not served: send tensors, and read scores.",
        )


def select_outputs(model: Model, request: InferRequest) -> tuple[str, ...]:
    """Return the names of the outputs that the client asks for, () where it leaves that to the server.

    Raises InvalidInput where the model has no such output.
    """
    known = names_of(model.outputs)
    for name in request.outputs:
        if name not in known:
            raise InvalidInput(
                f"The model {model.name} has no output {quoted(name)}.", f"Its outputs are {', '.join(known)}."
            )
    if len(set(request.outputs)) != len(request.outputs):
        raise InvalidInput(f"The outputs {', '.join(request.outputs)} name one twice.", "Name each output once.")
    return tuple(request.outputs)


def parse(
    model: Model, request: InferRequest, outputs: Sequence[str], settings: Settings, sent_bytes: int, latent_dim: int
) -> ImagesRequest[Any] | Float64Array:
    """Return what the model's endpoint works on. Raises InvalidInput or one of its kinds."""
    inputs = _by_name(model, request.inputs)
    values = {name: value for name, value in request.parameters.items() if name not in IGNORED}
    if model.endpoint.takes == "latents":
        if values:
            raise InvalidOption(f"The model {model.name} has no option {quoted(min(values))}.", "Leave it out.")
        return _read_latents(inputs["latents"], latent_dim)
    builder = RequestBuilder(settings, sent_bytes)
    _add_images(builder, "images", inputs["images"])
    if (reference := inputs.get("reference")) is not None:
        builder.get_uploads("reference")
        _add_images(builder, "reference", reference)
    if (context := inputs.get("context")) is not None:
        for text in _read_bytes(context):
            builder.add_contexts(text, "context")
    builder.options = values
    if model.endpoint.options is ScoreOptions:
        builder.options = _with_needs(model, values, outputs)
    return builder.build(model.endpoint.image_options)


def _by_name(model: Model, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the inputs by name. Raises InvalidInput where one is missing, twice there, or none of the model's."""
    inputs = {tensor.name: tensor for tensor in tensors}
    for name in inputs:
        if name not in model.input_names:
            raise InvalidInput(
                f"The model {model.name} has no input {quoted(name)}.",
                f"Its inputs are {', '.join(model.input_names)}.",
            )
    if len(inputs) != len(tensors):
        raise InvalidInput(f"{len(tensors)} inputs came, two of them with one name.", "Send each input once.")
    for spec in model.inputs:
        if spec.name not in inputs:
            raise InvalidInput(
                f"The request has no input {spec.name}, which the model {model.name} needs.",
                f"Send {spec.name}, {spec.datatype} of shape {list(spec.shape)}; its metadata say more.",
            )
    return inputs


def _add_images(builder: RequestBuilder, field: str, tensor: Tensor) -> None:
    """Add each element of a tensor of BYTES as an image file, or each row of pixels (n, H, W) or (n, H, W, C)."""
    if tensor.datatype == BYTES:
        for position, content in enumerate(_read_bytes(tensor)):
            builder.add(field, str(position), partial(_decode_base64, content))
        return
    arrays.check_images(tensor.shape, DTYPES[tensor.datatype])
    builder.shapes.append(tensor.shape)
    for position, pixels in enumerate(tensor.values):
        builder.add_image(field, pixels, str(position))


def _read_bytes(tensor: Tensor) -> Sequence[bytes | memoryview]:
    """Return the elements of a tensor of BYTES (n,) or (n, 1). Raises InvalidInput for any other."""
    if tensor.datatype != BYTES or tensor.shape not in ((len(tensor.values),), (len(tensor.values), 1)):
        raise InvalidInput(
            f"The tensor {tensor.name} is {tensor.datatype} of shape {list(tensor.shape)}, expected BYTES of shape "
            "(n,) or (n, 1).",
            "Send one element for each file.",
        )
    return tensor.values  # type: ignore[return-value]  # of BYTES it is no array


def _decode_base64(content: bytes | memoryview) -> bytes | memoryview:
    """Return the image file in `content`, which may be base64: MLServer's client sends that as the bytes of a text."""
    if not bytes(content[:LONGEST_HEAD]).startswith(BASE64_HEADS):
        return content
    with suppress(ValueError):  # whoever reads the image says what is wrong with it
        return binascii.a2b_base64(content, strict_mode=True)
    return content


def _read_latents(tensor: Tensor, latent_dim: int) -> Float64Array:
    if tensor.datatype not in ("FP16", "FP32", "FP64"):
        raise InvalidInput(
            f"The tensor {tensor.name} is {tensor.datatype}, expected FP32 or FP64.",
            "Send what the model encoder answers as mean.",
        )
    return check_latents(tensor.values, latent_dim)


def _with_needs(model: Model, values: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """Return the options with those that the outputs need: an output that is asked for is made.

    Raises InvalidOption where an option that the client gives rules the output out.
    """
    options = dict(values)
    for spec in model.outputs:
        if spec.name not in outputs:
            continue
        if spec.needs in SET_BY_OUTPUT:
            options.setdefault(spec.needs, SET_BY_OUTPUT[spec.needs])
        if spec.needs in RULES_OUT and options.get(spec.needs, RULES_OUT["nearest"]) == RULES_OUT[spec.needs]:
            raise InvalidOption(
                f"The output {spec.name} is asked for, but the parameter {spec.needs} is {RULES_OUT[spec.needs]}.",
                f"Set {spec.needs}, or leave the output out.",
            )
    return options
