"""gRPC only translates: messages in, messages out, and every error with the status and text that HTTP's table gives it.

Messages are parsed here rather than by gRPC, whose words for a malformed one say nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn

import grpc

from service.api.options import ScoreOptions
from service.api.requests import ImagesRequest
from service.api.wire import ERROR_DETAIL, REQUEST_ID, RETRY_AFTER
from service.errors import InvalidInput, MisfitError, Overloaded, TooManyImages, TooSlow
from service.pipeline.pipeline import Pipeline
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.telemetry import logs, spans
from service.telemetry.metrics import Metrics
from service.transports import memory_footprint
from service.transports.admission import Admission, Ticket
from service.transports.error_replies import RETRY_AFTER_SECONDS, check_length, for_client, late, request_id_of
from service.transports.error_status import STATUS
from service.transports.grpc.converters import (
    METHODS,
    Method,
    described,
    images_request,
    latents,
    parsed,
    pictured,
    scored_piece,
    stream_chunk,
)

_SERVICE = pb.DESCRIPTOR.services_by_name["MisfitService"]
SERVICE = _SERVICE.full_name
# Methods that take room: the rest says what there is.
TAKING_IMAGES = frozenset(_SERVICE.methods_by_name) - {"Describe"}
# An error travels in headers, of which a client takes 8 KiB by default.
MOST_MESSAGE_BYTES, MOST_HINT_BYTES = 1000, 500

Call = grpc.aio.ServicerContext[bytes, bytes]
Work = Callable[[bytes, Ticket], Awaitable[bytes]]


@dataclass(frozen=True)
class Servicer:
    """The pipeline's methods as gRPC's. `provider` says where the networks run."""

    pipeline: Pipeline
    provider: Callable[[], Awaitable[str]]
    admission: Admission
    metrics: Metrics

    def handlers(self) -> grpc.GenericRpcHandler:
        """Takes and gives serialised messages."""
        works: dict[str, Work] = {name: partial(self._images_answer, method) for name, method in METHODS.items()}
        works |= {"Decode": self._decode, "Describe": self._describe}
        return grpc.method_handlers_generic_handler(
            SERVICE,
            # As streams of which one message is read and one is sent, which on the wire is no different: gRPC would
            # wait for the whole message before it runs anything of ours, and the end tells when the answer is sent.
            {
                name: grpc.stream_stream_rpc_method_handler(partial(self._unary, name, work))
                for name, work in works.items()
            }
            | {"ScoreStream": grpc.stream_stream_rpc_method_handler(self._score_stream)},
        )

    async def _unary(self, name: str, work: Work, _: AsyncIterator[bytes], call: Call) -> None:
        async with self._answering(name, call) as ticket:
            content = await read_message(call, self.pipeline.settings.body_seconds)
            check_length(len(content), self.pipeline.settings.max_body_bytes)
            ticket.take_work(memory_footprint.RECEIVED_COPIES * len(content))
            await call.write(await work(content, ticket))

    async def _images_answer(self, method: Method[Any], content: bytes, ticket: Ticket) -> bytes:
        ticket.expect(0)  # its bytes are here already
        with self.metrics.stage("parse"):
            request = await asyncio.to_thread(self._read, method, content)
        logs.add_images(request.size)
        ticket.take_images(request.size)
        size = memory_footprint.of_request(request, self.pipeline.bundle, "message")
        ticket.take_work(size)
        found = await method.work(self.pipeline, request)
        ticket.keep(memory_footprint.RECEIVED_COPIES * len(content) + size)
        with self.metrics.stage("serialise"):
            return await asyncio.to_thread(method.answer, found)

    def _read(self, method: Method[Any], content: bytes) -> ImagesRequest[Any]:
        settings = self.pipeline.settings
        return images_request(parsed(method.request, content, settings), method.options, settings, len(content))

    async def _decode(self, content: bytes, ticket: Ticket) -> bytes:
        ticket.expect(0)
        latent_dim = self.pipeline.bundle.manifest.latent_dim
        with self.metrics.stage("parse"):
            rows = await asyncio.to_thread(
                lambda: latents(parsed(pb.DecodeRequest, content, self.pipeline.settings), latent_dim)
            )
        logs.add_images(len(rows))
        ticket.take_images(len(rows))
        size = memory_footprint.of_latents(len(rows), self.pipeline.bundle, "message")
        ticket.take_work(size)
        found = await self.pipeline.decode(rows)
        ticket.keep(memory_footprint.RECEIVED_COPIES * len(content) + size)
        with self.metrics.stage("serialise"):
            return await asyncio.to_thread(pictured, found)

    async def _describe(self, content: bytes, ticket: Ticket) -> bytes:
        parsed(pb.DescribeRequest, content, self.pipeline.settings)
        message: bytes = described(self.pipeline.describe(await self.provider())).SerializeToString()
        return message

    async def _score_stream(self, contents: AsyncIterator[bytes], call: Call) -> None:
        async with self._answering("ScoreStream", call) as ticket:
            async for piece in self.pipeline.score_stream(self._chunks(contents, ticket)):
                with self.metrics.stage("serialise"):
                    message = await asyncio.to_thread(scored_piece, piece)
                await call.write(message)

    async def _chunks(
        self, contents: AsyncIterator[bytes], ticket: Ticket
    ) -> AsyncIterator[ImagesRequest[ScoreOptions]]:
        """The chunks of a stream, of which one at a time is in flight."""
        settings, is_first, images = self.pipeline.settings, True, 0
        async for content in contents:
            check_length(len(content), settings.max_body_bytes)
            if is_first:
                ticket.expect(0)
            ticket.widen(0, memory_footprint.RECEIVED_COPIES * len(content))
            with self.metrics.stage("parse"):
                chunk = await asyncio.to_thread(stream_chunk, content, settings, is_first=is_first)
            logs.add_images(chunk.size)
            ticket.widen(chunk.size, 0)
            ticket.take_work(memory_footprint.of_chunk(chunk, self.pipeline.bundle))
            is_first, images = False, images + chunk.size
            if images > settings.max_stream_images:
                raise TooManyImages(
                    f"The stream has more than {settings.max_stream_images} images, reference included.",
                    "Send them in several, with a context so that all are compared with the same.",
                )
            yield chunk

    @asynccontextmanager
    async def _answering(self, name: str, call: Call) -> AsyncIterator[Ticket]:
        """What is taken on the ticket is in flight until the call ends."""
        async with answering(name, call, self.metrics, self.pipeline.settings.timeout_seconds):
            with self.admission.ticket() as ticket:
                yield ticket


async def read_message(call: Call, seconds: float) -> bytes:
    """Return the message of a call that has one.

    Raises TooSlow where it has not come after that many seconds, and InvalidInput where the call ends without.
    """
    try:
        async with asyncio.timeout(seconds):
            content = await call.read()
    except TimeoutError:
        raise TooSlow(f"The message has not come in {seconds:g} s.", "Send it faster, or in parts.") from None
    if not isinstance(content, bytes):
        raise InvalidInput("The call has no message.", "Send one, which may be empty.")
    return content


@asynccontextmanager
async def answering(name: str, call: Call, metrics: Metrics, timeout_seconds: float) -> AsyncIterator[None]:
    """A call of our method `name` is answered inside: counted, logged and traced. An error becomes its status."""
    metadata = dict(call.invocation_metadata() or ())
    started, number, code = time.perf_counter(), request_id_of_call(metadata), grpc.StatusCode.OK
    call.set_trailing_metadata(((REQUEST_ID, number),))
    with (
        spans.grpc_span(SERVICE, name, metadata) as span,
        logs.call(number, "gRPC", f"/{SERVICE}/{name}", call.peer()) as logged,
    ):
        try:
            async with asyncio.timeout(timeout_seconds):
                yield
        except asyncio.CancelledError:  # by the client, or at its deadline
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the trace
            shown = for_client(late(timeout_seconds) if isinstance(error, TimeoutError) else error, number)
            code = status_code(shown)
            if STATUS[type(shown)].http >= HTTPStatus.INTERNAL_SERVER_ERROR:
                spans.set_failed(span, shown.code)
            await refuse(call, shown, number)
        finally:
            metrics.grpc_call(name, code.name, time.perf_counter() - started)
            logged.status = code.name
            span.set_attribute("rpc.grpc.status_code", code.value[0])


def method_name(path: str) -> str:
    """The method of ours that a call asks for by its path; "unknown" for all that are not."""
    service, _, name = path.removeprefix("/").rpartition("/")
    return name if service == SERVICE and name in _SERVICE.methods_by_name else "unknown"


def request_id_of_call(metadata: Mapping[str, str | bytes]) -> str:
    return request_id_of(str(metadata.get(REQUEST_ID, "")))


def status_code(error: MisfitError) -> grpc.StatusCode:
    return grpc.StatusCode[STATUS[type(error)].grpc]


async def refuse(call: Call, error: MisfitError, number: str) -> NoReturn:
    """End the call with the status of `error`, its text, and in the trailing metadata the same as an ErrorDetail."""
    message, hint = _cut(error.message, MOST_MESSAGE_BYTES), _cut(error.hint, MOST_HINT_BYTES)
    detail = pb.ErrorDetail(code=error.code, message=message, hint=hint).SerializeToString()
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, number), (ERROR_DETAIL, detail)]
    if isinstance(error, Overloaded):
        metadata.append((RETRY_AFTER, RETRY_AFTER_SECONDS))
    await call.abort(status_code(error), f"{message} {hint}".strip(), tuple(metadata))


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")
