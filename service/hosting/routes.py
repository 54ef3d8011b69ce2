"""HTTP routes: one for each endpoint of the table, as BentoML declares them, and as they are served.

What BentoML does with a request beside calling its method, such as choosing a codec, is done by
`service.transports.http` already. So the served routes call that directly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import bentoml
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.endpoints import ENDPOINTS, Endpoint
from service.hosting.io_descriptors import make_form
from service.hosting.private_names import private_names, require
from service.telemetry.metrics import Metrics
from service.transports.dispatch import Dispatcher
from service.transports.http.handler import handle
from service.transports.http.middleware import build_metrics_unavailable

with private_names(__name__):
    from bentoml._internal.configuration.containers import BentoMLContainer

    require(BentoMLContainer, "metrics_client.get")

logger = logging.getLogger(__name__)


class Routes:
    """The base of a BentoML service with a method for each endpoint. It needs dispatchers and metrics of its bundles.

    Both are by the bundles' names; "" is the default one.
    """

    dispatchers: Mapping[str, Dispatcher]
    metrics: Mapping[str, Metrics]


def list_routes(get_service: Callable[[], Routes], bundles: Iterable[str] = ()) -> list[Route]:
    """Return the routes to the endpoints and the metrics of the service that `get_service` returns.

    It has to exist only once there are requests. `bundles` are the names of those beside the default one.
    """

    async def read_metrics(request: Request) -> Response:
        client = BentoMLContainer.metrics_client.get()
        for metrics in get_service().metrics.values():
            metrics.refresh()
        try:
            content = await asyncio.to_thread(client.generate_latest)
        except Exception as error:  # noqa: BLE001 - a trace for each scrape would say no more
            logger.warning("the counts cannot be read: %s: %s", type(error).__name__, error)
            return build_metrics_unavailable(request.scope)
        return Response(content, media_type=client.CONTENT_TYPE_LATEST)

    endpoints = [_make_route(each, get_service, bundle) for bundle in ("", *bundles) for each in ENDPOINTS.values()]
    return [*endpoints, Route("/metrics", read_metrics)]


class EndpointApp:
    """The ASGI application of an endpoint. Starlette wraps a function, though not a class, in three more coroutines."""

    def __init__(self, endpoint: Endpoint, get_service: Callable[[], Routes], bundle: str) -> None:
        self._endpoint, self._get_service, self._bundle = endpoint, get_service, bundle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dispatcher = self._get_service().dispatchers[self._bundle]
        response = await handle(Request(scope, receive, send), self._endpoint, dispatcher)
        await response(scope, receive, send)


class EndpointsFirst:
    """ASGI middleware that hands a request of an endpoint to it, past the router, which tries one route after another.

    The router still answers what has another method.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Route]) -> None:
        self._app = app
        self._apps = {route.path: route.app for route in routes if isinstance(route.app, EndpointApp)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._apps.get(scope["path"]) if scope.get("method") == "POST" else None
        await (app or self._app)(scope, receive, send)


def _make_route(endpoint: Endpoint, get_service: Callable[[], Routes], bundle: str) -> Route:
    prefix = f"/models/{bundle}" if bundle else ""
    return Route(f"{prefix}/{endpoint.name}", EndpointApp(endpoint, get_service, bundle), methods=["POST"])


def _make_method(endpoint: Endpoint) -> Any:
    """Return the BentoML API method of an endpoint. It shows in BentoML's schema, for BentoML's own clients."""

    async def handler(self: Routes, request: Request) -> Response:
        return await handle(request, endpoint, self.dispatchers[""])

    handler.__name__ = endpoint.name
    handler.__doc__ = endpoint.summary
    return bentoml.api(route=f"/{endpoint.name}", input_spec=make_form(endpoint), output_spec=endpoint.answer)(handler)


for _endpoint in ENDPOINTS.values():
    setattr(Routes, _endpoint.name, _make_method(_endpoint))
