"""The outermost of HTTP: which paths there are, and a line in the log for each request."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry import logs
from service.transports.http.responses import OPEN_PATHS, metrics_unavailable, no_such_path, request_id

MOST_PATH = 100

logger = logging.getLogger(__name__)


class AccessLog:
    """ASGI middleware: every request is logged, but for probes and scrapes, which come every few seconds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        client = ":".join(map(str, scope.get("client") or ()))
        path = quote(scope["path"])[:MOST_PATH]
        with logs.call(request_id(scope), scope["method"], path, client) as call:

            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    call.status = message["status"]
                await send(message)

            return await self._app(scope, receive, watched_send)


class ReadableMetrics:
    """ASGI middleware: counts that cannot be read are 503 and a line in the log, not a trace for each scrape."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/metrics":
            return await self._app(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing has been sent yet
            logger.warning("the counts cannot be read: %s: %s", type(error).__name__, error)
            await metrics_unavailable(scope)(scope, receive, send)


class KnownPaths:
    """ASGI application: lets through to a server only what it has a route or a file for.

    BentoML's server counts and traces every path that it is asked for, before it looks whether it has it: whoever
    asks for enough of them would fill memory, disk and Prometheus.
    """

    def __init__(self, server: Starlette) -> None:
        self._server = server
        self._known = frozenset(path for route in server.routes for path in _paths(route))
        self._refusal = AccessLog(_refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._known)
        await (self._server if known else self._refusal)(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
    else:
        response: Response = no_such_path(scope)
        await response(scope, receive, send)


def _paths(route: object) -> list[str]:
    """Every path that `route` answers. Raises TypeError where they cannot be told."""
    if isinstance(route, Route) and not route.param_convertors:
        return [route.path]
    if isinstance(route, Mount) and isinstance(route.app, StaticFiles) and route.app.directory is not None:
        root = Path(route.app.directory)
        return [f"{route.path}/{file.relative_to(root).as_posix()}" for file in root.rglob("*") if file.is_file()]
    raise TypeError(f"{route!r} answers paths that cannot be listed")
