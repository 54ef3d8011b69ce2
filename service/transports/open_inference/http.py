"""The Open Inference Protocol over HTTP: its routes, and requests and answers as JSON with bytes behind it.

Bytes behind the JSON are the binary tensor extension: the header Inference-Header-Content-Length is the length of the
JSON, and the bytes of each tensor follow in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api import payload_limits
from service.api.json_texts import INFERENCE_EXAMPLE, INFERENCE_HEAD, read_json
from service.api.wire import INFERENCE_HEADER_LENGTH, REQUEST_ID
from service.errors import InvalidInput, quoted
from service.transports import memory_footprint
from service.transports.dispatch import Dispatcher
from service.transports.http.middleware import until_sent
from service.transports.http.negotiation import JSON
from service.transports.http.request_body import read_body, while_connected
from service.transports.http.responses import answer_errors, request_id
from service.transports.open_inference import error_body
from service.transports.open_inference.answers import InferResponse
from service.transports.open_inference.codec import (
    BINARY,
    BINARY_OUTPUT,
    BINARY_SIZE,
    INPUT_PARAMETERS,
    MOST_ELEMENTS,
    OUTPUT_PARAMETERS,
    VALUE_BYTES,
    InferRequest,
    check_parameters,
)
from service.transports.open_inference.infer import infer
from service.transports.open_inference.models import SERVER, Model
from service.transports.open_inference.tensors import BYTES, Tensor, announce

OCTETS = "application/octet-stream"
# Stands for every output, where the client names none.
ALL = ""
FIELDS = frozenset({"id", "parameters", "inputs", "outputs", "model_name", "model_version"})


class Service(Protocol):
    """The parts of the service that the routes use."""

    dispatchers: Mapping[str, Dispatcher]

    async def __is_ready__(self) -> bool: ...


def make_routes(models: Iterable[Model], get_service: Callable[[], Service]) -> list[Route]:
    """Return a route for each path of the protocol: none has a parameter, so that all of them can be listed."""

    def answer(content: Mapping[str, Any]) -> Callable[[Request], Any]:
        async def handler(request: Request) -> Response:
            return _respond(content, request)

        return handler

    def report(name: str, word: str) -> Callable[[Request], Any]:
        async def handler(request: Request) -> Response:
            is_ready = await get_service().__is_ready__()
            content = {"name": name, word: is_ready} if name else {word: is_ready}
            return _respond(content, request, 200 if is_ready else 503)

        return handler

    def run(model: Model) -> Callable[[Request], Any]:
        async def handler(request: Request) -> Response:
            dispatcher = get_service().dispatchers[model.bundle]
            timeout_seconds = dispatcher.pipeline.settings.timeout_seconds
            return await answer_errors(request, _infer(request, model, dispatcher), timeout_seconds)

        return handler

    root = error_body.ROOT
    routes = [
        *(Route(path, answer(SERVER)) for path in (root, f"{root}/")),
        Route(f"{root}/health/live", report("", "live")),
        Route(f"{root}/health/ready", report("", "ready")),
    ]
    for model in models:
        for path in (f"{root}/models/{model.name}", f"{root}/models/{model.name}/versions/{model.version}"):
            routes += [
                Route(path, answer(model.describe())),
                Route(f"{path}/ready", report(model.name, "ready")),
                Route(f"{path}/infer", run(model), methods=["POST"]),
            ]
    return routes


def _respond(content: Mapping[str, Any], request: Request, status: int = 200) -> Response:
    return Response(to_json(content), status, {REQUEST_ID: request_id(request.scope)}, media_type=JSON)


async def _infer(request: Request, model: Model, dispatcher: Dispatcher) -> Response:
    ticket = until_sent(request).enter_context(dispatcher.admission.ticket())
    settings = dispatcher.pipeline.settings
    body = await read_body(request, settings.max_body_bytes, settings.body_seconds, ticket)
    lengths = request.headers.getlist(INFERENCE_HEADER_LENGTH)  # several are one that is no number
    text, binary = split(body, ", ".join(lengths) if lengths else None)
    most_values = MOST_ELEMENTS * settings.max_values
    count = await asyncio.to_thread(payload_limits.check_json, text, most_values)
    ticket.take_work(2 * memory_footprint.of_parsing(JSON, len(text)) + VALUE_BYTES * count)
    read = partial(read_request, text, binary, most_values)
    sent_bytes = len(body)
    del body, text, binary
    wait = partial(while_connected, request)
    answer = await infer(dispatcher, model, read, ticket, sent_bytes=sent_bytes, wait=wait)
    ticket.take_bytes(answer.count_written_bytes(lambda tensor: is_binary(tensor, answer)))
    with dispatcher.metrics.stage("serialise"):
        content, json_length = await asyncio.to_thread(write_response, answer)
    headers = {REQUEST_ID: request_id(request.scope)}
    if json_length is None:
        return Response(content, headers=headers, media_type=JSON)
    return Response(content, headers={**headers, INFERENCE_HEADER_LENGTH: str(json_length)}, media_type=OCTETS)


def read_request(text: memoryview, binary: memoryview, max_values: int) -> InferRequest:
    """Return the request in a JSON text and the bytes behind it.

    Raises InvalidInput where it is none, and TooLarge where it is made of more than `max_values` values.
    """
    what = INFERENCE_HEAD if len(binary) else "The inference request"
    content, _ = read_json(text, what, max_values)
    if not isinstance(content, dict) or content.keys() - FIELDS:
        what = f"fields {', '.join(sorted(content))}" if isinstance(content, dict) else type(content).__name__
        raise InvalidInput(
            f"The inference request has {what}; expected id, parameters, inputs, outputs.", INFERENCE_EXAMPLE
        )
    parameters = _object(content.get("parameters"), "parameters")
    inputs = []
    for each in _objects(content.get("inputs"), "inputs"):
        tensor, binary = _read_input(each, binary)
        inputs.append(tensor)
    if len(binary):
        raise InvalidInput(
            f"{len(binary)} bytes follow the tensors.",
            f"Each tensor behind the JSON has the parameter {BINARY_SIZE}; together they are the rest of the body.",
        )
    names, are_binary = [], set()
    for each in _objects(content.get("outputs"), "outputs"):
        name, own = each.get("name"), _object(each.get("parameters"), "parameters")
        if not isinstance(name, str):
            raise InvalidInput(f"An output has the name {quoted(name)}, expected a text.", "Name each output.")
        check_parameters(own, OUTPUT_PARAMETERS, f"The output {quoted(name)}")
        names.append(name)
        if _flag(own.get(BINARY, parameters.get(BINARY_OUTPUT)), BINARY):
            are_binary.add(name)
    id_ = content.get("id")
    if not isinstance(id_, str | None):
        raise InvalidInput(f"id is {quoted(id_)}, expected a text.", "Leave it out, or write it in quotes.")
    if not names and _flag(parameters.get(BINARY_OUTPUT), BINARY_OUTPUT):
        are_binary.add(ALL)
    return InferRequest(id_ or "", parameters, inputs, names, frozenset(are_binary))


def split(content: bytes, header: str | None) -> tuple[memoryview, memoryview]:
    """Return the JSON of a body, and the bytes behind it.

    header  the value of Inference-Header-Content-Length, if there is one

    Raises InvalidInput where it is no length within the body.
    """
    body = memoryview(content)
    if header is None:
        return body, body[len(body) :]
    if not (header.isascii() and header.isdigit()) or len(header) > 20 or int(header) > len(body):
        raise InvalidInput(
            f"The header Inference-Header-Content-Length is {quoted(header)}, but the body has {len(body)} bytes.",
            "It is the length of the JSON at the beginning of the body, in bytes.",
        )
    return body[: int(header)], body[int(header) :]


def _read_input(each: Mapping[str, Any], binary: memoryview) -> tuple[Tensor, memoryview]:
    """Return an input, and what it leaves of the bytes behind the JSON."""
    announced = announce(each.get("name"), each.get("datatype"), each.get("shape"))
    parameters = _object(each.get("parameters"), "parameters")
    check_parameters(parameters, INPUT_PARAMETERS, announced.where)
    size, data = parameters.get(BINARY_SIZE), each.get("data")
    if (size is None) == (data is None):
        raise InvalidInput(
            f"{announced.where} has {'both data and' if data is not None else 'neither data nor'} {BINARY_SIZE}.",
            f"Write the elements as data, or their number of bytes as parameters.{BINARY_SIZE} and append the bytes.",
        )
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise InvalidInput(
                f"{announced.where} has the {BINARY_SIZE} {quoted(size)}, but {len(binary)} bytes are left behind the "
                "JSON.",
                "Append the bytes of each tensor, in order, and send the header Inference-Header-Content-Length.",
            )
        return announced.read_bytes(binary[:size]), binary[size:]
    if not isinstance(data, list):
        raise InvalidInput(f"{announced.where} has data that is no list.", INFERENCE_EXAMPLE)
    if announced.datatype == BYTES:
        return announced.read_texts(data, "data"), binary
    return announced.read_list(data, "data"), binary


def _object(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is {quoted(value)}, expected an object.", INFERENCE_EXAMPLE)
    return value


def _objects(value: object, what: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidInput(f"{what} is {quoted(value)}, expected a list of objects.", INFERENCE_EXAMPLE)
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool | None):
        raise InvalidInput(f"{what} is {quoted(value)}, expected true or false.")
    return bool(value)


def is_binary(tensor: Tensor, answer: InferResponse) -> bool:
    """Return whether the client wants that output as bytes."""
    return tensor.name in answer.binary or ALL in answer.binary


def write_response(answer: InferResponse) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON where bytes follow it, else None."""
    head: dict[str, Any] = {"model_name": answer.model.name, "model_version": answer.model.version}
    if answer.id:
        head["id"] = answer.id
    head["parameters"] = answer.parameters
    parts, binary = [to_json(head)[:-1], b',"outputs":['], []
    for place, tensor in enumerate(answer.outputs):
        description: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        parts += [b","] if place else []
        if is_binary(tensor, answer):
            binary.append(tensor.to_bytes())
            parts.append(to_json({**description, "parameters": {BINARY_SIZE: len(binary[-1])}}))
        else:
            parts += [to_json(description)[:-1], b',"data":', *tensor.to_json(), b"}"]
    parts.append(b"]}")
    text = b"".join(parts)
    return (b"".join([text, *binary]), len(text)) if binary else (text, None)
