"""HTTP only translates: bodies in, JSON out, and every error in one shape.

A large answer is made while it is sent, piece by piece, so that memory holds no more of it than a few pieces.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from http import HTTPStatus
from typing import Protocol

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.schemas import ErrorDetail, ErrorResponse
from service.api.wire import REQUEST_ID, RETRY_AFTER
from service.errors import Overloaded, Unauthenticated
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.hooks import Hooks
from service.transports.error_replies import RETRY_AFTER_SECONDS, for_client, late, request_id_of
from service.transports.error_status import STATUS
from service.transports.http.request_body import while_connected

JSON, PNG, ZIP = "application/json", "image/png", "application/zip"
CLIENT_CLOSED_REQUEST = 499  # for the access log: nobody is left to read it
# Answers of up to so many bytes are sent whole, with their length; larger ones while they are made.
MOST_WHOLE = 1024 * 1024

logger = logging.getLogger(__name__)


class Pictured(Protocol):
    """An answer with pictures, in each of its forms."""

    def as_json(self) -> ChunkedResponse[BaseModel]: ...

    def as_sheet(self) -> bytes: ...

    def as_zip(self) -> Iterator[bytes]: ...


Answer = BaseModel | ChunkedResponse[BaseModel] | Pictured


async def answer(
    request: Request, work: Awaitable[Answer], timeout_seconds: float, hooks: Hooks | None = None
) -> Response:
    """The response that `work` leads to, or the error in which it ends."""
    hooks = hooks or Hooks()
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    headers = {REQUEST_ID: request_id(request.scope)}
    try:
        async with asyncio.timeout_at(deadline):
            found = await work
            media_type = _media_type(found, request.headers.get("accept", ""))
            with hooks.stage("serialise"):
                begun, rest = await asyncio.to_thread(_begin, found, media_type)
        if rest is None:
            return Response(begun, media_type=media_type, headers=headers)
        return Streamed(begun, rest, deadline, hooks, media_type, headers)
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST, headers=headers)
    except TimeoutError:
        return error_response(late(timeout_seconds), request.scope)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the trace
        return error_response(error, request.scope)


def media_type_wanted(accept: str) -> str:
    """The form in which a client wants an answer with pictures: JSON, a contact sheet, or files."""
    wanted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return next((form for form in (PNG, ZIP) if form in wanted), JSON)


def _media_type(found: Answer, accept: str) -> str:
    return JSON if isinstance(found, BaseModel | ChunkedResponse) else media_type_wanted(accept)


def _begin(found: Answer, media_type: str) -> tuple[bytes, Iterator[bytes] | None]:
    """The beginning of the answer in that form, and what makes the rest of it: None where that is all."""
    pieces, begun, size = _pieces(found, media_type), [], 0
    for piece in pieces:
        begun.append(piece)
        if (size := size + len(piece)) > MOST_WHOLE:
            return b"".join(begun), pieces
    return b"".join(begun), None


def _pieces(found: Answer, media_type: str) -> Iterator[bytes]:
    if isinstance(found, BaseModel):
        return iter([found.model_dump_json(exclude_unset=True).encode()])
    if isinstance(found, ChunkedResponse):
        return found.json()
    if media_type == PNG:
        return iter([found.as_sheet()])
    return found.as_zip() if media_type == ZIP else found.as_json().json()


class Streamed(Response):
    """A response that is made, in threads, while it is sent: no piece before the one before it has been taken.

    Nothing is left that could fail but the time and the client: where one of them runs out, the answer ends before
    its last piece, which every HTTP client takes for the error that it is.
    """

    def __init__(
        self,
        begun: bytes,
        rest: Iterator[bytes],
        deadline: float,
        hooks: Hooks,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        """`deadline` is of the event loop's clock."""
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._begun, self._rest, self._deadline, self._hooks = begun, rest, deadline, hooks

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
        piece: bytes | None = self._begun
        self._begun = b""
        while piece is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            with self._hooks.stage("serialise"):
                piece = await asyncio.to_thread(next, self._rest, None)
        await send({"type": "http.response.body", "body": b""})


def error_response(error: Exception, scope: Scope) -> Response:
    """`error` as the client sees it."""
    shown = for_client(error, request_id(scope))
    headers = {RETRY_AFTER: RETRY_AFTER_SECONDS} if isinstance(shown, Overloaded) else {}
    if isinstance(shown, Unauthenticated):
        headers = {"www-authenticate": "Bearer"}
    return error_body(STATUS[type(shown)].http, shown.code, shown.message, shown.hint, scope, headers)


def error_body(
    status: HTTPStatus, code: str, message: str, hint: str, scope: Scope, headers: dict[str, str] | None = None
) -> Response:
    number = request_id(scope)
    body = ErrorResponse(error=ErrorDetail(code=code, message=message, hint=hint), request_id=number)
    headers = {REQUEST_ID: number, **(headers or {})}
    return Response(body.model_dump_json(), status, headers, media_type=JSON)


def request_id(scope: Scope) -> str:
    """The client's X-Request-ID if it is a plain word, else one of our own; the same for one request."""
    if REQUEST_ID not in (state := scope.setdefault("state", {})):
        state[REQUEST_ID] = request_id_of(Request(scope).headers.get(REQUEST_ID, ""))
    return str(state[REQUEST_ID])
