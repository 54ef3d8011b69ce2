"""An ASGI application in front of BentoML's server that answers 404 for every path that does not exist."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from service.transports.http.middleware import AccessLog, build_not_found


class PathAllowlist:
    """An ASGI application that passes a request to `server` only if the server has a route or a file for its path.

    BentoML's server counts and traces every path that a client names, before it looks for a route. Without this, a
    client that names many paths would fill memory, disk and Prometheus.
    """

    def __init__(self, server: Starlette) -> None:
        self._server = server
        self._paths = frozenset(path for route in server.routes for path in _list_paths(route))
        self._refusal = AccessLog(_refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exists = scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._paths)
        await (self._server if exists else self._refusal)(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
    else:
        response: Response = build_not_found(scope)
        await response(scope, receive, send)


def _list_paths(route: object) -> list[str]:
    """Return every path that `route` answers. Raises TypeError if a route has parameters, or is of an unknown kind."""
    if isinstance(route, Route) and not route.param_convertors:
        return [route.path]
    if isinstance(route, Mount) and isinstance(route.app, StaticFiles) and route.app.directory is not None:
        root = Path(route.app.directory)
        return [f"{route.path}/{file.relative_to(root).as_posix()}" for file in root.rglob("*") if file.is_file()]
    raise TypeError(f"{route!r} answers paths that cannot be listed")
