"""The ASGI application of a worker: BentoML's, with misfit's logs, traces, routes and pages.

Only workers import this module: the supervisor serves nothing, and needs no client of HTTP.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

import bentoml
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from service.bundle import store
from service.hosting import metric_files, shutdown
from service.hosting.path_allowlist import PathAllowlist
from service.hosting.private_names import private_names, require, require_in_code
from service.hosting.routes import list_routes
from service.settings import Settings
from service.telemetry import logs, tracing
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
    from bentoml._internal.server.base_app import BaseAppFactory
    from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware

    require(BentoMLContainer, "tracer_provider.set")
    require(bentoml.Service, "inject_config")
    require_in_code(ServiceAppFactory.__init__, "is_main")
    require_in_code(BaseAppFactory.__init__, "timeout")
    require(RunnerTrafficMetricsMiddleware, "_setup")
    require_in_code(RunnerTrafficMetricsMiddleware._setup, *COUNTS)


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
    """BentoML's counts of requests. A labelled count is looked up once, and then remembered.

    `service.hosting.path_allowlist` bounds the paths that are labels.
    """

    def _setup(self, *args: Any, **kwargs: Any) -> None:
        super()._setup(*args, **kwargs)
        for name in COUNTS:
            metric = getattr(self, name)
            metric.labels = cache(metric.labels)


def _leave_out(middleware: Any, server: Starlette) -> None:
    server.user_middleware = [each for each in server.user_middleware if each.cls is not middleware]


def add_api(server: Starlette, get_service: Callable[[], Any]) -> ASGIApp:
    """Add the routes and pages of the HTTP API to `server`. The service has to exist only once there are requests."""
    settings = Settings()
    directories = {"": settings.bundle_directory, **settings.more_bundles}
    manifests = {name: store.read_manifest(directory) for name, directory in directories.items()}
    models = [model for name, each in manifests.items() for model in list_models(each, name).values()]
    # In front of BentoML's own page at /, and of its own routes.
    server.router.routes[:0] = [
        *list_routes(get_service, settings.more_bundles),  # first, since the router tries one after the other
        *static_pages.ROUTES,
        *open_inference.make_routes(models, get_service),
    ]
    _leave_out(ContextMiddleware, server)  # of BentoML's own API methods, which no route leads to
    counts: Any = RunnerTrafficMetricsMiddleware
    middleware: list[Any] = server.user_middleware
    server.user_middleware = [
        Middleware(TrafficMetrics, **each.kwargs) if each.cls is counts else each for each in middleware
    ]
    app = PathAllowlist(server)
    origins = settings.cors_origins
    return Cors(app, origins) if origins else app
