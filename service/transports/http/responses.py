"""HTTP responses: JSON, a contact sheet, a zip or a table, and every error in one shape.

A large answer is made while it is sent, so that memory holds only a few pieces of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from http import HTTPStatus

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import short_work
from service.api.schemas import ErrorDetail, ErrorResponse
from service.api.wire import REQUEST_ID, RETRY_AFTER
from service.errors import Overloaded, Unauthenticated
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.explain.score_sheet import ScoreSheet
from service.pipeline.hooks import Hooks
from service.transports.dispatch import Answer
from service.transports.error_replies import RETRY_AFTER_SECONDS, build_timeout_error, request_id_of, to_client_error
from service.transports.error_status import STATUS
from service.transports.http.negotiation import CSV, JSON, PNG, ZIP
from service.transports.http.request_body import while_connected
from service.transports.http.score_table import ScoreTable
from service.transports.open_inference import error_body
from service.transports.time_limits import TimeLimit

REQUEST_ID_NAME = REQUEST_ID.encode()
CLIENT_CLOSED_REQUEST = 499  # for the access log: nobody is left to read it
# Answers of up to so many bytes are sent whole, with their length; larger ones while they are made.
MOST_WHOLE = 1024 * 1024
# What browsers save rather than show, and how they call it.
FILES = {ZIP: "misfit.zip", CSV: "misfit.csv"}

logger = logging.getLogger(__name__)


async def respond(
    request: Request,
    work: Awaitable[Answer | ScoreTable],
    timeout_seconds: float,
    hooks: Hooks | None = None,
    media_type: str = JSON,
) -> Response:
    """Return the response to the answer of `work` as `media_type`, or to the error that it raises."""
    hooks = hooks or Hooks()
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    headers = {REQUEST_ID: request_id(request.scope)}
    if (file := FILES.get(media_type)) is not None:
        headers |= {"content-disposition": f'attachment; filename="{file}"'}

    async def make_response() -> Response:
        answer = await work
        with hooks.stage("serialise"):
            is_short = isinstance(answer, ChunkedResponse) and answer.is_short
            beginning, rest = await short_work.run(is_short, _make_beginning, answer, media_type)
        if rest is None:
            return Response(beginning, media_type=media_type, headers=headers)
        return StreamedResponse(beginning, rest, deadline, hooks, media_type, headers)

    return await answer_errors(request, make_response(), timeout_seconds)


async def answer_errors(request: Request, response: Awaitable[Response], timeout_seconds: float) -> Response:
    """Return the response, or that to the error which it raises or to its not being there in `timeout_seconds`."""
    try:
        with TimeLimit(timeout_seconds):
            return await response
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST, headers={REQUEST_ID: request_id(request.scope)})
    except TimeoutError:
        return build_error_response(build_timeout_error(timeout_seconds), request.scope)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the trace
        return build_error_response(error, request.scope)


def _make_beginning(answer: Answer | ScoreTable, media_type: str) -> tuple[bytes, Iterator[bytes] | None]:
    """Return the beginning of the answer, and an iterator of the rest: None where the beginning is all of it."""
    pieces, beginning, size = _iterate_pieces(answer, media_type), [], 0
    for piece in pieces:
        beginning.append(piece)
        if (size := size + len(piece)) > MOST_WHOLE:
            return b"".join(beginning), pieces
    return b"".join(beginning), None


def _iterate_pieces(answer: Answer | ScoreTable, media_type: str) -> Iterator[bytes]:
    if isinstance(answer, BaseModel):
        return iter([answer.model_dump_json(exclude_unset=True).encode()])
    if isinstance(answer, ChunkedResponse):
        return answer.json()
    if isinstance(answer, ScoreTable):
        return answer.pieces()
    if isinstance(answer, ScoreSheet) or media_type == PNG:
        return iter([answer.as_sheet()])
    return answer.as_zip() if media_type == ZIP else answer.as_json().json()


class StreamedResponse(Response):
    """A response that is made in threads while it is sent. A piece is made once the one before it was taken.

    Only the time and the client can still fail. Then the answer ends before its last piece, which every HTTP client
    reports as an error.
    """

    def __init__(
        self,
        beginning: bytes,
        rest: Iterator[bytes],
        deadline: float,
        hooks: Hooks,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        """Make a response of `beginning` and `rest`. `deadline` is a time of the event loop."""
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._beginning, self._rest, self._deadline, self._hooks = beginning, rest, deadline, hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with asyncio.timeout_at(self._deadline):
                await while_connected(Request(scope, receive), self._send_pieces(send))
        except ClientDisconnect:
            logger.info("the client has gone before it had all of its answer")
        except TimeoutError:
            logger.warning("the answer was not sent within MISFIT_TIMEOUT_SECONDS: its client is too slow")
        if self.background is not None:
            await self.background()

    async def _send_pieces(self, send: Send) -> None:
        piece: bytes | None = self._beginning
        self._beginning = b""
        while piece is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            with self._hooks.stage("serialise"):
                piece = await asyncio.to_thread(next, self._rest, None)
        await send({"type": "http.response.body", "body": b""})


def build_error_response(error: Exception, scope: Scope) -> Response:
    """Return the response to `error` as the client sees it."""
    reply = to_client_error(error, request_id(scope))
    headers = {RETRY_AFTER: RETRY_AFTER_SECONDS} if isinstance(reply, Overloaded) else {}
    if isinstance(reply, Unauthenticated):
        headers = {"www-authenticate": "Bearer"}
    return build_error_body(STATUS[type(reply)].http, reply.code, reply.message, reply.hint, scope, headers)


def build_error_body(
    status: HTTPStatus, code: str, message: str, hint: str, scope: Scope, headers: dict[str, str] | None = None
) -> Response:
    number = request_id(scope)
    headers = {REQUEST_ID: number, **(headers or {})}
    if error_body.is_path(scope["path"]):
        return Response(error_body.write(message, hint), error_body.choose_status(status), headers, media_type=JSON)
    body = ErrorResponse(error=ErrorDetail(code=code, message=message, hint=hint), request_id=number)
    return Response(body.model_dump_json(), status, headers, media_type=JSON)


def request_id(scope: Scope) -> str:
    """Return the client's X-Request-ID if it is a plain word, else a new one; the same id for all of one request."""
    if REQUEST_ID not in (state := scope.setdefault("state", {})):
        sent = next((value for name, value in scope["headers"] if name == REQUEST_ID_NAME), b"")
        state[REQUEST_ID] = request_id_of(sent.decode("latin-1"))
    return str(state[REQUEST_ID])
