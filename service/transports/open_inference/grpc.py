"""The Open Inference Protocol over gRPC: its methods, and messages to requests and answers to messages.

Answers have their tensors as bytes where the request had, else as lists of numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from service.api import payload_limits
from service.errors import InvalidInput, quoted
from service.protos.inference import open_inference_pb2 as pb
from service.settings import Settings
from service.transports import memory_footprint
from service.transports.admission import Ticket
from service.transports.dispatch import Dispatcher
from service.transports.error_replies import check_length
from service.transports.grpc.servicer import OPEN_INFERENCE, Call, answering, read_message
from service.transports.open_inference.answers import InferResponse
from service.transports.open_inference.codec import (
    INPUT_PARAMETERS,
    MOST_ELEMENTS,
    OUTPUT_PARAMETERS,
    VALUE_BYTES,
    InferRequest,
    check_parameters,
)
from service.transports.open_inference.infer import infer
from service.transports.open_inference.models import SERVER, Model, find_model, list_models
from service.transports.open_inference.tensors import CONTENTS, DTYPES, FIELD_TYPES, Tensor, announce

INFER = "ModelInfer"
HINT = "Generate the client from service/protos/inference/open_inference.proto of this version."


@dataclass(frozen=True)
class InferenceServicer:
    """The methods of `inference.GRPCInferenceService`, over the models of all bundles, whose dispatchers have names."""

    dispatchers: Mapping[str, Dispatcher]
    is_ready: Callable[[], Awaitable[bool]]

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the handlers of all methods; they take and give serialised messages."""
        methods: dict[str, Callable[[AsyncIterator[bytes], Call], Awaitable[None]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": partial(self._answer, "ServerMetadata", pb.ServerMetadataRequest, self._server),
            "ModelReady": partial(self._answer, "ModelReady", pb.ModelReadyRequest, self._model_ready),
            "ModelMetadata": partial(self._answer, "ModelMetadata", pb.ModelMetadataRequest, self._metadata),
            INFER: self._infer,
        }
        # As streams, for the reasons that `service.transports.grpc.servicer` has.
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(OPEN_INFERENCE.full_name, handlers)

    async def _live(self, _: AsyncIterator[bytes], call: Call) -> None:
        # Without a token anybody may call these two: their messages, which have no fields, are not read.
        await call.write(pb.ServerLiveResponse(live=await self.is_ready()).SerializeToString())

    async def _ready(self, _: AsyncIterator[bytes], call: Call) -> None:
        await call.write(pb.ServerReadyResponse(ready=await self.is_ready()).SerializeToString())

    async def _answer(
        self,
        name: str,
        kind: type[Message],
        answer: Callable[[Any], Awaitable[Message]],
        _: AsyncIterator[bytes],
        call: Call,
    ) -> None:
        """Answer a method that says what there is."""
        async with answering(name, call, self.dispatcher.metrics, self._settings.timeout_seconds):
            content = await read_message(call, self._settings.body_seconds)
            check_length(len(content), self._settings.max_body_bytes)
            await call.write((await answer(parse_message(kind, content, self._settings))).SerializeToString())

    async def _server(self, _: pb.ServerMetadataRequest) -> Message:
        return json_format.ParseDict(SERVER, pb.ServerMetadataResponse())

    async def _model_ready(self, message: pb.ModelReadyRequest) -> Message:
        find_model(self._models, message.name, message.version)
        return pb.ModelReadyResponse(ready=await self.is_ready())

    async def _metadata(self, message: pb.ModelMetadataRequest) -> Message:
        model = find_model(self._models, message.name, message.version)
        return json_format.ParseDict(model.describe(), pb.ModelMetadataResponse())

    async def _infer(self, _: AsyncIterator[bytes], call: Call) -> None:
        settings = self._settings
        async with answering(INFER, call, self.dispatcher.metrics, settings.timeout_seconds):
            with self.dispatcher.admission.ticket() as ticket:
                content = await read_message(call, settings.body_seconds)
                check_length(len(content), settings.max_body_bytes)
                received = memory_footprint.RECEIVED_COPIES * len(content)
                ticket.take_work(received)
                ticket.expect(0)  # its bytes are here already
                limit = MOST_ELEMENTS * settings.max_values
                check = partial(payload_limits.check_message, pb.ModelInferRequest.DESCRIPTOR, content, limit)
                count = await asyncio.to_thread(check)
                ticket.take_work(VALUE_BYTES * count)
                with self.dispatcher.metrics.stage("parse"):
                    message = await asyncio.to_thread(_parse, pb.ModelInferRequest, content)
                model = find_model(self._models, message.model_name, message.model_version)
                answer = await self._run(model, message, len(content), received, ticket)
                ticket.take_bytes(answer.count_written_bytes(lambda _: answer.raw))
                with self.dispatcher.metrics.stage("serialise"):
                    response = await asyncio.to_thread(write_response, answer)
                await call.write(response)

    async def _run(
        self, model: Model, message: pb.ModelInferRequest, sent_bytes: int, received: int, ticket: Ticket
    ) -> InferResponse:
        read = partial(read_request, message)
        return await infer(
            self.dispatchers[model.bundle], model, read, ticket, sent_bytes=sent_bytes, kept_bytes=received
        )

    @cached_property
    def _models(self) -> Mapping[str, Model]:
        bundles = {name: each.pipeline.bundle.manifest for name, each in self.dispatchers.items()}
        return {name: model for bundle in bundles for name, model in list_models(bundles[bundle], bundle).items()}

    @property
    def dispatcher(self) -> Dispatcher:
        """Return the default bundle's dispatcher: it has the limits and the metrics of all calls."""
        return self.dispatchers[""]

    @property
    def _settings(self) -> Settings:
        return self.dispatcher.pipeline.settings


def parse_message(kind: type[Message], content: bytes, settings: Settings) -> Any:
    """Return the message in `content`. Raises InvalidInput, or TooLarge where it holds too many values."""
    payload_limits.check_message(kind.DESCRIPTOR, content, settings.max_values)
    return _parse(kind, content)


def _parse(kind: type[Message], content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        what = f"The body of {len(content)} bytes is no {kind.DESCRIPTOR.full_name}: {error}."
        raise InvalidInput(what, HINT) from error


def read_request(message: pb.ModelInferRequest) -> InferRequest:
    """Return the request in a message. Raises InvalidInput where its tensors are not what they state."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(
            f"{len(raw)} raw_input_contents came for {len(message.inputs)} inputs.",
            "Either every input is there, in order, or none.",
        )
    inputs = [_read_input(tensor, raw[place] if raw else None) for place, tensor in enumerate(message.inputs)]
    for output in message.outputs:
        check_parameters(_plain(output.parameters), OUTPUT_PARAMETERS, f"The output {quoted(output.name)}")
    outputs = [output.name for output in message.outputs]
    return InferRequest(message.id, _plain(message.parameters), inputs, outputs, raw=bool(raw))


def _read_input(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    announced = announce(tensor.name, tensor.datatype, list(tensor.shape))
    check_parameters(_plain(tensor.parameters), INPUT_PARAMETERS, announced.where)
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if raw is not None:
        if filled:
            raise InvalidInput(
                f"{announced.where} has both raw_input_contents and contents.{filled[0]}.", "Send it once."
            )
        return announced.read_bytes(raw)
    field = CONTENTS.get(announced.datatype)
    if field is None or filled not in ([], [field]):
        expected = "raw_input_contents" if field is None else f"contents.{field}"
        came = ", ".join(f"contents.{name}" for name in filled) or "nothing"
        raise InvalidInput(
            f"{announced.where} is {announced.datatype}, which stands in {expected}, but {came} came.",
            "The quickest way to send pixels is raw_input_contents.",
        )
    contents = getattr(tensor.contents, field)
    if announced.datatype in DTYPES:
        contents = np.fromiter(contents, DTYPES[FIELD_TYPES[field]], len(contents))
    return announced.read_list(contents, f"contents.{field}")


def _plain(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """Return parameters as JSON would hold them. Raises InvalidInput where one has no value."""
    values = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidInput(f"The parameter {quoted(name)} has no value.", "Set one of its fields.")
        values[name] = getattr(parameter, kind)
    return values


def write_response(answer: InferResponse) -> bytes:
    """Return the answer as a serialised message."""
    message = pb.ModelInferResponse(
        model_name=answer.model.name,
        model_version=answer.model.version,
        id=answer.id,
        parameters={name: _parameter(value) for name, value in answer.parameters.items()},
    )
    for tensor in answer.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if answer.raw:
            message.raw_output_contents.append(tensor.to_bytes())
        else:
            getattr(output.contents, CONTENTS[tensor.datatype]).extend(tensor.to_list())
    content: bytes = message.SerializeToString()
    return content


def _parameter(value: str | int | float | bool) -> pb.InferParameter:
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, int):
        return pb.InferParameter(int64_param=value)
    if isinstance(value, float):
        return pb.InferParameter(double_param=value)
    return pb.InferParameter(string_param=value)
