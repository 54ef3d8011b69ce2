"""The gRPC servicer: every method of the endpoint table, and the stream. Errors have the status and text of one table.

Messages are parsed here rather than by gRPC, which says nothing useful about a malformed one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn

import grpc

from service import short_work
from service.api.options import ScoreOptions
from service.api.requests import ImagesRequest
from service.api.wire import ERROR_DETAIL, REQUEST_ID, RETRY_AFTER
from service.errors import InvalidInput, MisfitError, Overloaded, TooManyImages, TooSlow
from service.pipeline.chunked_response import ChunkedResponse
from service.protos.inference import open_inference_pb2
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.telemetry import logs, spans
from service.telemetry.metrics import Metrics
from service.transports import memory_footprint, parse_cost
from service.transports.admission import Ticket
from service.transports.dispatch import Dispatcher, Parsed
from service.transports.error_replies import (
    RETRY_AFTER_SECONDS,
    build_timeout_error,
    check_length,
    request_id_of,
    to_client_error,
)
from service.transports.error_status import STATUS
from service.transports.grpc.converters import (
    METHODS,
    SERVICE,
    Method,
    parse_message,
    read_images_request,
    read_latents,
    read_stream_chunk,
    serialise_scores,
)
from service.transports.time_limits import TimeLimit

STREAM = "ScoreStream"
# The other service on this port, whose methods are in `service.transports.open_inference.grpc`. No name is in both.
OPEN_INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICES = {service.full_name: service for service in (SERVICE, OPEN_INFERENCE)}
# Methods that take room: the others say what there is.
ADMITTED = frozenset(
    {STREAM, "ModelInfer", *(name for name, method in METHODS.items() if method.endpoint.takes != "nothing")}
)
# An error travels in headers, of which a client takes 8 KiB by default.
MOST_MESSAGE_BYTES, MOST_HINT_BYTES = 1000, 500

Call = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True)
class Servicer:
    """The endpoints as gRPC methods."""

    dispatcher: Dispatcher

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the handlers of all methods; they take and give serialised messages."""
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name,
            # As streams of which one message is read and one is sent, which on the wire is no different: gRPC would
            # wait for the whole message before it runs anything of ours, and the end tells when the answer is sent.
            {
                name: grpc.stream_stream_rpc_method_handler(partial(self._unary, method))
                for name, method in METHODS.items()
            }
            | {STREAM: grpc.stream_stream_rpc_method_handler(self._score_stream)},
        )

    async def _unary(self, method: Method, _: AsyncIterator[bytes], call: Call) -> None:
        async with self._answering(method.endpoint.grpc_name, call) as ticket:
            content = await read_message(call, self._settings.body_seconds)
            check_length(len(content), self._settings.max_body_bytes)
            received = memory_footprint.RECEIVED_COPIES * len(content)
            ticket.take_work(received)
            if method.endpoint.takes == "nothing":
                if content:  # no field is known: it may be long, and full of others
                    await asyncio.to_thread(parse_message, method.request, content, self._settings)
                answer = await self.dispatcher.describe()
            else:
                ticket.expect(0)  # its bytes are here already
                parse = partial(self._parse, method, content)
                cost = parse_cost.of_message(method.request.DESCRIPTOR, content)
                answer = await self.dispatcher.run(method.endpoint, parse, cost, ticket, "message", kept_bytes=received)
            await call.write(await self._serialise(method.serialise, answer))

    def _parse(self, method: Method, content: bytes) -> Parsed:
        message = parse_message(method.request, content, self._settings)
        if method.endpoint.takes == "latents":
            return read_latents(message, self.dispatcher.pipeline.bundle.manifest.latent_dim)
        return read_images_request(message, method.endpoint.image_options, self._settings, len(content))

    async def _score_stream(self, contents: AsyncIterator[bytes], call: Call) -> None:
        async with self._answering(STREAM, call) as ticket:
            async for piece in self.dispatcher.pipeline.score_stream(self._chunks(contents, ticket)):
                await call.write(await self._serialise(serialise_scores, piece))

    async def _chunks(
        self, contents: AsyncIterator[bytes], ticket: Ticket
    ) -> AsyncIterator[ImagesRequest[ScoreOptions]]:
        """Yield the chunks of a stream, of which one at a time is in flight."""
        settings, options, images, rows = self._settings, None, 0, 0
        async for content in contents:
            check_length(len(content), settings.max_body_bytes)
            if options is None:
                ticket.expect(0)
            ticket.widen(0, memory_footprint.RECEIVED_COPIES * len(content))
            parse = partial(read_stream_chunk, content, settings, is_first=options is None, first=rows)
            cost = parse_cost.of_message(pb.ScoreStreamRequest.DESCRIPTOR, content)
            chunk = await self.dispatcher.read_chunk(parse, cost, ticket, options)
            options, images, rows = options or chunk.options, images + chunk.size, rows + len(chunk.images)
            if images > settings.max_stream_images:
                raise TooManyImages(
                    f"The stream has more than {settings.max_stream_images} images, reference included.",
                    "Send them in several, with a context so that all are compared with the same.",
                )
            yield chunk

    async def _serialise(self, serialise: Callable[[Any], bytes], answer: Any) -> bytes:
        with self.dispatcher.metrics.stage("serialise"):
            is_short = isinstance(answer, ChunkedResponse) and answer.is_short
            return await short_work.run(is_short, serialise, answer)

    @property
    def _settings(self) -> Settings:
        return self.dispatcher.pipeline.settings

    @asynccontextmanager
    async def _answering(self, name: str, call: Call) -> AsyncIterator[Ticket]:
        """Yield a ticket for the call. What is taken on it is in flight until the call ends."""
        async with answering(name, call, self.dispatcher.metrics, self._settings.timeout_seconds):
            with self.dispatcher.admission.ticket() as ticket:
                yield ticket


async def read_message(call: Call, seconds: float) -> bytes:
    """Return the one message of a call.

    Raises TooSlow where it has not come in `seconds`, and InvalidInput where the call ends without one.
    """
    try:
        with TimeLimit(seconds):
            content = await call.read()
    except TimeoutError:
        raise TooSlow(f"The message has not come in {seconds:g} s.", "Send it faster, or in parts.") from None
    if not isinstance(content, bytes):
        raise InvalidInput("The call has no message.", "Send one, which may be empty.")
    return content


@asynccontextmanager
async def answering(name: str, call: Call, metrics: Metrics, timeout_seconds: float) -> AsyncIterator[None]:
    """Count, log and trace a call of the method `name`; an error inside becomes the call's status."""
    metadata = dict(call.invocation_metadata() or ())
    started, number, code = time.perf_counter(), request_id_of_call(metadata), grpc.StatusCode.OK
    service = OPEN_INFERENCE.full_name if name in OPEN_INFERENCE.methods_by_name else SERVICE.full_name
    call.set_trailing_metadata(((REQUEST_ID, number),))
    with (
        spans.grpc_span(service, name, metadata) as span,
        logs.Call(number, "gRPC", f"/{service}/{name}", call.peer()) as logged,
    ):
        try:
            with TimeLimit(timeout_seconds):
                yield
        except asyncio.CancelledError:  # by the client, or at its deadline
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the trace
            reply = to_client_error(
                build_timeout_error(timeout_seconds) if isinstance(error, TimeoutError) else error, number
            )
            code = status_code(reply)
            if STATUS[type(reply)].http >= HTTPStatus.INTERNAL_SERVER_ERROR:
                spans.set_failed(span, reply.code)
            await refuse(call, reply, number)
        finally:
            metrics.count_grpc_call(name, code.name, time.perf_counter() - started)
            logged.status = code.name
            span.set_attribute("rpc.grpc.status_code", code.value[0])


def method_name(path: str) -> str:
    """Return which method of `SERVICES` a call's path names, or "unknown"."""
    service, _, name = path.removeprefix("/").rpartition("/")
    return name if service in SERVICES and name in SERVICES[service].methods_by_name else "unknown"


def request_id_of_call(metadata: Mapping[str, str | bytes]) -> str:
    return request_id_of(str(metadata.get(REQUEST_ID, "")))


def status_code(error: MisfitError) -> grpc.StatusCode:
    return grpc.StatusCode[STATUS[type(error)].grpc]


async def refuse(call: Call, error: MisfitError, number: str) -> NoReturn:
    """End the call with the status of `error`, its text, and an ErrorDetail in the trailing metadata."""
    message, hint = _cut(error.message, MOST_MESSAGE_BYTES), _cut(error.hint, MOST_HINT_BYTES)
    detail = pb.ErrorDetail(code=error.code, message=message, hint=hint).SerializeToString()
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, number), (ERROR_DETAIL, detail)]
    if isinstance(error, Overloaded):
        metadata.append((RETRY_AFTER, RETRY_AFTER_SECONDS))
    await call.abort(status_code(error), f"{message} {hint}".strip(), tuple(metadata))


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")
