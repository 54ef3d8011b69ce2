"""The ASGI application of a worker: BentoML's, with misfit's logs, traces, routes and pages.

Only workers import this module: the supervisor serves nothing, and needs no client of HTTP.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from time import perf_counter, time
from typing import Any

import bentoml
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.bundle import store
from service.hosting import metric_files, shutdown
from service.hosting.path_allowlist import PathAllowlist
from service.hosting.private_names import private_names, require, require_in_code
from service.hosting.routes import EndpointsFirst, list_routes
from service.settings import Settings
from service.telemetry import logs, tracing
from service.telemetry.late_writes import late_writes
from service.transports.http import static_pages
from service.transports.http.cors import Cors
from service.transports.open_inference import http as open_inference
from service.transports.open_inference.models import list_models

# Of BentoML, for every request.
COUNTS = (
    "metrics_request_total",
    "metrics_request_duration",
    "metrics_request_in_progress",
    "metrics_last_request_timestamp",
)

with private_names(__name__):
    from _bentoml_impl.server.app import ContextMiddleware, ServiceAppFactory
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.context import server_context
    from bentoml._internal.server.base_app import BaseAppFactory
    from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware

    require(BentoMLContainer, "tracer_provider.set")
    require(bentoml.Service, "inject_config")
    require_in_code(ServiceAppFactory.__init__, "is_main")
    require_in_code(BaseAppFactory.__init__, "timeout")
    require(RunnerTrafficMetricsMiddleware, "_setup")
    require_in_code(RunnerTrafficMetricsMiddleware._setup, *COUNTS, "_is_setup")
    require_in_code(RunnerTrafficMetricsMiddleware.__init__, "app", "skip_paths")
    require(server_context, "bento_name", "bento_version", "service_name")


def build(service: bentoml.Service[Any], add_routes: Callable[[Starlette], ASGIApp], *, is_main: bool) -> ASGIApp:
    """Return the application of a worker of `service`. Call this once, when the worker starts."""
    shutdown.end_with_supervisor()
    settings = Settings()
    logs.configure(settings.log_format, service.name)
    metric_files.prepare()
    if settings.tracing:
        BentoMLContainer.tracer_provider.set(tracing.start(service.name))
    service.inject_config()
    factory = ServiceAppFactory(service, is_main=is_main)
    # The service has a timeout of its own. BentoML never cancels the timer of a request: even after the answer, the
    # timer keeps about 10 kB of the request in memory until it ends.
    factory.timeout = None
    server: Starlette = factory()
    if not settings.tracing:  # otherwise it makes spans that nobody exports: a sixth of a small request's time
        _leave_out(OpenTelemetryMiddleware, server)
    app = add_routes(server)
    # The objects that exist now live as long as the process. Without `freeze` the collector would visit all of them
    # whenever an answer makes thousands of small records (measured: a third of the time of /explain's reasons).
    gc.collect()
    gc.freeze()
    return tracing.Unlinked(app) if settings.tracing else app


class TrafficMetrics(RunnerTrafficMetricsMiddleware):
    """BentoML's counts of requests, written together. A labelled count is looked up once, and then remembered.

    `service.hosting.path_allowlist` bounds the paths that are labels.
    """

    def _setup(self, *args: Any, **kwargs: Any) -> None:
        super()._setup(*args, **kwargs)
        service = {"service_name": server_context.bento_name, "service_version": server_context.bento_version}
        labels = {**service, "runner_name": server_context.service_name}
        for name in COUNTS:
            metric = getattr(self, name)
            setattr(self, name, cache(partial(metric.labels, **labels)))
        self._in_progress = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/metrics":
            return await self.app(scope, receive, send)
        if not self._is_setup:
            self._setup()
        path, started, status = scope["path"], perf_counter(), 0

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                labels = {"endpoint": path, "http_response_code": status}
                late_writes.inc(self.metrics_request_total(**labels))
                late_writes.observe(self.metrics_request_duration(**labels), perf_counter() - started)
            await send(message)

        if path not in self.skip_paths:
            late_writes.set(self.metrics_last_request_timestamp(), time())
        self._report_progress(path, 1)
        try:
            await self.app(scope, receive, counted_send)
        finally:
            self._report_progress(path, -1)

    def _report_progress(self, path: str, change: int) -> None:
        self._in_progress[path] += change
        late_writes.set(self.metrics_request_in_progress(endpoint=path), self._in_progress[path])


def _leave_out(middleware: Any, server: Starlette) -> None:
    server.user_middleware = [each for each in server.user_middleware if each.cls is not middleware]


def add_api(server: Starlette, get_service: Callable[[], Any]) -> ASGIApp:
    """Add the routes and pages of the HTTP API to `server`. The service has to exist only once there are requests."""
    settings = Settings()
    directories = {"": settings.bundle_directory, **settings.more_bundles}
    manifests = {name: store.read_manifest(directory) for name, directory in directories.items()}
    models = [model for name, each in manifests.items() for model in list_models(each, name).values()]
    routes = list_routes(get_service, settings.more_bundles)
    # In front of BentoML's own page at /, and of its own routes.
    server.router.routes[:0] = [*routes, *static_pages.ROUTES, *open_inference.make_routes(models, get_service)]
    _leave_out(ContextMiddleware, server)  # of BentoML's own API methods, which no route leads to
    counts: Any = RunnerTrafficMetricsMiddleware
    middleware: list[Any] = server.user_middleware
    server.user_middleware = [
        *(Middleware(TrafficMetrics, **each.kwargs) if each.cls is counts else each for each in middleware),
        Middleware(EndpointsFirst, routes=routes),
    ]
    app = PathAllowlist(server)
    origins = settings.cors_origins
    return Cors(app, origins) if origins else app
