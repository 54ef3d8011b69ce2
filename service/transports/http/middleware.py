"""ASGI middleware of the HTTP API: the access log, and what is around every request beside it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.endpoints import ENDPOINTS
from service.api.wire import REQUEST_ID
from service.settings import Settings
from service.telemetry import logs
from service.transports.auth import Tokens
from service.transports.http import static_pages
from service.transports.http.responses import build_error_body, build_error_response, request_id
from service.transports.open_inference import error_body

MOST_PATH = 100
MODELS = (
    "The models are misfit, encoder and, where the bundle can draw, decoder, at /v2/models/NAME; their only version is "
    "the bundle_id of POST /describe."
)


class AccessLog:
    """Logs every request, but for probes and scrapes, which come every few seconds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        client = ":".join(map(str, scope.get("client") or ()))
        with logs.Call(request_id(scope), scope["method"], _shorten(scope["path"][:MOST_PATH]), client) as call:

            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    call.status = message["status"]
                await send(message)

            return await self._app(scope, receive, watched_send)


@lru_cache
def _shorten(path: str) -> str:
    return quote(path)[:MOST_PATH]


OPEN_PATHS = ("/livez", "/readyz", "/healthz", "/metrics", "/v2/health/live", "/v2/health/ready")

GRPC_PATHS = ("/misfit.v1.", "/inference.", "/grpc.")
# Beside /models/NAME/ and /v2.
PLAIN_PATHS = {*OPEN_PATHS[:4], "/docs", "/docs.json", *(f"/{name}" for name in ENDPOINTS)}

UNTIL_SENT = "until_sent"
# Has browsers load nothing from elsewhere, and run no script that stands in a page. Swagger UI shows pictures of
# answers as `blob:`, and writes styles into its page.
CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    b"frame-ancestors 'none'",
)


class Envelope:
    """What is around every request: a token, the shape of errors, a policy for browsers, and what its answer holds.

    - Requests without a valid token are refused. Probes, metrics and the files of the page at `/` need none.
    - The errors of BentoML and Starlette get the error body of this service, whose own responses are known by their
      X-Request-ID. An exception ends here.
    - What an endpoint enters in `until_sent` is held until its answer has been sent, or cannot be sent.

    One class does all, since every layer of its own would cost each message of every request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tokens = Tokens(Settings().tokens_file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = replaced = False

        async def send_in_shape(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started, headers = True, message["headers"]
                if replaced := message["status"] >= HTTPStatus.BAD_REQUEST and not _is_own(headers):
                    allow = {name.decode(): value.decode() for name, value in headers if name == b"allow"}
                    await build_framework_error(scope, HTTPStatus(message["status"]), allow)(scope, receive, send)
                message = {**message, "headers": [*headers, CONTENT_SECURITY_POLICY]}
            if not replaced:
                await send(message)

        with ExitStack() as stack:
            scope.setdefault("state", {})[UNTIL_SENT] = stack
            try:
                self._check_token(scope)
                await self._app(scope, receive, send_in_shape)
            except Exception as error:
                if started:
                    raise
                await build_error_response(error, scope)(scope, receive, send_in_shape)

    def _check_token(self, scope: Scope) -> None:
        """Raise Unauthenticated if the request needs a token, and has no valid one."""
        if self._tokens.are_needed and scope["path"] not in (*OPEN_PATHS, *static_pages.OPEN_PATHS):
            self._tokens.check(Request(scope).headers.getlist("authorization"))


def until_sent(request: Request) -> ExitStack:
    stack: ExitStack = request.scope["state"][UNTIL_SENT]
    return stack


def _is_own(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == REQUEST_ID.encode() for name, _ in headers)


def build_not_found(scope: Scope) -> Response:
    return build_framework_error(scope, HTTPStatus.NOT_FOUND, {})


def build_metrics_unavailable(scope: Scope) -> Response:
    message, hint = "The counts cannot be read.", "The log says why; everything else is answered."
    return build_error_body(HTTPStatus.SERVICE_UNAVAILABLE, "metrics_unavailable", message, hint, scope)


def _suggest_path(path: str) -> str:
    """Return a sentence with the path that was most likely meant: one in small letters, without slashes or a prefix."""
    if path.startswith(GRPC_PATHS):
        return "It is a method of gRPC, which has a port of its own (MISFIT_GRPC_PORT); gRPC-Web is not spoken. "
    *prefix, name = path.partition(";")[0].strip("/").split("/")
    if f"/{name.lower()}" not in PLAIN_PATHS or prefix[:1] == ["models"] or error_body.is_path(path):
        return ""
    by_proxy = " A proxy in front has to take its own prefix off." if any(prefix) else ""
    return f"Did you mean /{name.lower()}?{by_proxy} "


def build_framework_error(scope: Scope, status: HTTPStatus, headers: dict[str, str]) -> Response:
    method_and_path = f"{scope['method']} {scope['path']}"
    known = MODELS if error_body.is_path(scope["path"]) else "GET /docs.json lists what there is."
    message, hint = {
        HTTPStatus.NOT_FOUND: (f"There is no {method_and_path}.", _suggest_path(scope["path"]) + known),
        HTTPStatus.METHOD_NOT_ALLOWED: (f"There is no {method_and_path}.", known),
        HTTPStatus.SERVICE_UNAVAILABLE: ("The networks' process does not answer.", "It is starting, or gone."),
    }.get(status, (f"{status.description or status.phrase}.", "The log tells more."))
    return build_error_body(status, status.name.lower(), message, hint, scope, headers)
