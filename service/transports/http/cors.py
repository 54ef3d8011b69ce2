"""Cross-origin requests: which pages of other origins a browser lets call the service (the Fetch standard, CORS)."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.wire import INFERENCE_HEADER_LENGTH, REQUEST_ID, RETRY_AFTER
from service.transports.http.middleware import AccessLog
from service.transports.http.responses import build_error_body

EXPOSED = [REQUEST_ID, RETRY_AFTER, INFERENCE_HEADER_LENGTH, "www-authenticate"]


class Cors(CORSMiddleware):
    """Answers preflight requests, and lets the pages of `origins` read every answer, errors included.

    It stands in front of everything else: a preflight request has no token, and a refusal is an answer as well.
    Cookies are never allowed. Every request header is, so that a page may send its token.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            # A page of a public site may call a service in its visitor's own network.
            allow_private_network=True,
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope.get("method") == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            await AccessLog(self._answer_preflight(headers, scope))(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _answer_preflight(self, headers: Headers, scope: Scope) -> Response:
        """Return the answer to a preflight request; a refusal in the form of every error."""
        response = self.preflight_response(headers)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        message = (
            f"A page of {headers['origin'][:100]} may not send {headers['access-control-request-method'][:20]} here."
        )
        hint = "The operator names the origins of such pages in MISFIT_CORS_ORIGINS; methods are GET, HEAD and POST."
        allowed = {name: value for name, value in response.headers.items() if name.startswith(("access-", "vary"))}
        return build_error_body(HTTPStatus.FORBIDDEN, "origin_not_allowed", message, hint, scope, allowed)


def build_refusal_headers(origin: str, origins: tuple[str, ...]) -> dict[str, str]:
    """Return the headers that let a page of `origin` read why its request was refused before any application saw it."""
    if not origin or not {"*", origin}.intersection(origins):
        return {}
    allowed = "*" if "*" in origins else origin
    return {
        "access-control-allow-origin": allowed,
        "access-control-expose-headers": ", ".join(EXPOSED),
        "vary": "Origin",
    }
