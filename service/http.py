"""HTTP only translates: bodies in, JSON out, and every error in one shape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import Ticket
from service.errors import Overloaded, TooSlow, Unauthenticated, UnsupportedMediaType
from service.observer import Observer
from service.replies import REQUEST_ID, RETRY_AFTER, RETRY_AFTER_SECONDS, check_length, for_client, late, request_id_of
from service.schemas import ErrorDetail, ErrorResponse
from service.settings import Settings
from service.status import STATUS
from service.tokens import Tokens

T = TypeVar("T")
OPEN_PATHS = ("/livez", "/readyz", "/healthz", "/metrics")
JSON, PNG, ZIP = "application/json", "image/png", "application/zip"
CLIENT_CLOSED_REQUEST = 499  # for the access log: nobody is left to read it


async def read_body(request: Request, max_bytes: int, seconds: float, ticket: Ticket) -> bytes:
    """The whole body.

    Raises TooLarge as soon as the header, or what has come, exceeds `max_bytes`, Overloaded where it has no room, and
    TooSlow where it has not come after that many seconds.
    """
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedMediaType(f"Content-Encoding is {coding}.", "Send the body uncompressed, or as a zip.")
    announced = request.headers.get("content-length", "0")
    announced_bytes = int(announced) if announced.isdecimal() else 0
    check_length(announced_bytes, max_bytes)
    ticket.expect(announced_bytes)
    chunks, length = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                check_length(length := length + len(chunk), max_bytes)
                ticket.take_bytes(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise TooSlow(
            f"Of the body, {length} bytes have come in {seconds:g} s, and not all.", "Send it faster, or in parts."
        ) from None
    # A large copy, during which others are to be answered.
    return await asyncio.to_thread(b"".join, chunks)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, once the body is read; stopped with ClientDisconnect if the client goes away."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Pictured(Protocol):
    """An answer with pictures, in each of its forms."""

    def with_pictures(self) -> BaseModel: ...

    def as_sheet(self) -> bytes: ...

    def as_zip(self) -> bytes: ...


Answer = BaseModel | Pictured


async def answer(
    request: Request, work: Awaitable[Answer], timeout_seconds: float, observer: Observer | None = None
) -> Response:
    """The response that `work` leads to, or the error in which it ends."""
    observer = observer or Observer()
    try:
        async with asyncio.timeout(timeout_seconds):
            found = await work
            with observer.stage("serialise"):
                content, media_type = await asyncio.to_thread(_represented, found, request.headers.get("accept", ""))
        return Response(content, media_type=media_type, headers={REQUEST_ID: request_id(request.scope)})
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST, headers={REQUEST_ID: request_id(request.scope)})
    except TimeoutError:
        return error_response(late(timeout_seconds), request.scope)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the trace
        return error_response(error, request.scope)


def _represented(found: Answer, accept: str) -> tuple[bytes, str]:
    """The answer in the form that the client asked for: pictures also come as a contact sheet, or as files."""
    if not isinstance(found, BaseModel):
        wanted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        if PNG in wanted:
            return found.as_sheet(), PNG
        if ZIP in wanted:
            return found.as_zip(), ZIP
        found = found.with_pictures()
    return found.model_dump_json(exclude_unset=True).encode(), JSON


def error_response(error: Exception, scope: Scope) -> Response:
    """`error` as the client sees it."""
    shown = for_client(error, request_id(scope))
    headers = {RETRY_AFTER: RETRY_AFTER_SECONDS} if isinstance(shown, Overloaded) else {}
    if isinstance(shown, Unauthenticated):
        headers = {"www-authenticate": "Bearer"}
    return _error_body(STATUS[type(shown)].http, shown.code, shown.message, shown.hint, scope, headers)


def _error_body(
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


class Authentication:
    """ASGI middleware: callers without a valid token get no further, but probes and metrics need none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tokens = Tokens(Settings().tokens_file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self._tokens.check(Request(scope).headers.getlist("authorization"))
            except Unauthenticated as error:
                return await error_response(error, scope)(scope, receive, send)
        return await self._app(scope, receive, send)


class ErrorBodies:
    """ASGI middleware: what BentoML or Starlette refuse on their own gets our error body as well.

    Our own responses are known by their X-Request-ID. An exception ends here: above it, BentoML's timeout
    would wait for a response that never comes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = replaced = False

        async def send_in_shape(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                ours = any(name.lower() == REQUEST_ID.encode() for name, _ in message["headers"])
                if replaced := message["status"] >= HTTPStatus.BAD_REQUEST and not ours:
                    allow = {name.decode(): value.decode() for name, value in message["headers"] if name == b"allow"}
                    await _foreign_error(scope, HTTPStatus(message["status"]), allow)(scope, receive, send)
            if not replaced:
                await send(message)

        try:
            await self._app(scope, receive, send_in_shape)
        except Exception as error:
            if started:
                raise
            await error_response(error, scope)(scope, receive, send)


def no_such_path(scope: Scope) -> Response:
    return _foreign_error(scope, HTTPStatus.NOT_FOUND, {})


def metrics_unavailable(scope: Scope) -> Response:
    message, hint = "The counts cannot be read.", "The log says why; everything else is answered."
    return _error_body(HTTPStatus.SERVICE_UNAVAILABLE, "metrics_unavailable", message, hint, scope)


class OwnScriptsOnly:
    """ASGI middleware: BentoML's page about the API would load a script that reports its visitors to a third party."""

    POLICY = (b"content-security-policy", b"default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'")

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], self.POLICY]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _foreign_error(scope: Scope, status: HTTPStatus, headers: dict[str, str]) -> Response:
    asked = f"{scope['method']} {scope['path']}"
    message, hint = {
        HTTPStatus.NOT_FOUND: (f"There is no {asked}.", "GET /docs.json lists what there is."),
        HTTPStatus.METHOD_NOT_ALLOWED: (f"There is no {asked}.", "GET /docs.json lists what there is."),
        HTTPStatus.SERVICE_UNAVAILABLE: ("The networks' process does not answer.", "It is starting, or gone."),
    }.get(status, (f"{status.description or status.phrase}.", "The log tells more."))
    return _error_body(status, status.name.lower(), message, hint, scope, headers)
