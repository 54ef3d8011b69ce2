"""The classes of the two BentoML services. They add logs and traces, and correct BentoML where it does harm."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import bentoml
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.types import ASGIApp

from service.bundle import store
from service.hosting import metric_files, shutdown
from service.hosting.path_allowlist import PathAllowlist
from service.hosting.private_names import private_names, require, require_in_code
from service.hosting.routes import list_routes
from service.settings import Settings
from service.telemetry import logs, tracing
from service.transports.http import openapi, static_pages
from service.transports.http.cors import Cors
from service.transports.open_inference import http as open_inference
from service.transports.open_inference.models import list_models

with private_names(__name__):
    from _bentoml_impl.server.app import ServiceAppFactory
    from _bentoml_sdk.service import factory as service_factory
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.server.base_app import BaseAppFactory

    require(BentoMLContainer, "tracer_provider.set", "remote_runner_mapping.get", "config.services")
    require(bentoml.Service, "to_asgi", "inject_config", "openapi_spec", "__attrs_post_init__")
    require_in_code(bentoml.Service.__attrs_post_init__, "dependencies")
    require_in_code(bentoml.Service.to_asgi, "is_main")
    require_in_code(service_factory.service, "service_class")
    require_in_code(ServiceAppFactory.__init__, "is_main")
    require_in_code(BaseAppFactory.__init__, "timeout")


def get_addresses() -> dict[str, str]:
    """Return the addresses at which BentoML's services reach each other, by the service's name.

    The mapping is BentoML's own: BentoML sees every change of it.
    """
    mapping: dict[str, str] = BentoMLContainer.remote_runner_mapping.get()
    return mapping


class Worker(bentoml.Service[Any]):
    """A BentoML service whose worker logs and traces as the settings say."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the ASGI application of the worker. BentoML calls this once, when the worker starts."""
        shutdown.end_with_supervisor()
        settings = Settings()
        logs.configure(settings.log_format, self.name)
        metric_files.prepare()
        if settings.tracing:
            BentoMLContainer.tracer_provider.set(tracing.start(self.name))
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        # The service has a timeout of its own. BentoML never cancels the timer of a request: even after the answer, the
        # timer keeps about 10 kB of the request in memory until it ends.
        factory.timeout = None
        app = self.build_app(factory)
        # The objects that exist now live as long as the process. Without `freeze` the collector would visit all of them
        # whenever an answer makes thousands of small records (measured: a third of the time of /explain's reasons).
        gc.collect()
        gc.freeze()
        return tracing.Unlinked(app) if settings.tracing else app

    def build_app(self, factory: ServiceAppFactory) -> Any:
        """Return the ASGI application that `factory` makes. A subclass may change it."""
        app: Starlette = factory()
        if not Settings().tracing:  # otherwise it makes spans that nobody exports: a sixth of a small request's time
            tracing_middleware: Any = OpenTelemetryMiddleware
            app.user_middleware = [each for each in app.user_middleware if each.cls is not tracing_middleware]
        return app


class Api(Worker):
    """The HTTP service. It has misfit's OpenAPI document and pages, and refuses paths that do not exist.

    It depends on another service, the networks, only where that is to have a process of its own.
    """

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self._needs_inference_process():
            self.dependencies.clear()

    def __call__(self) -> Any:
        """Return a new instance of the service. BentoML calls this once in a worker."""
        self.instance: Any = super().__call__()
        return self.instance

    def _needs_inference_process(self) -> bool:
        """Return whether the networks get a process of their own."""
        try:
            choice = Settings().inference_process
        except ValidationError:
            return False  # the supervisor ends with a line that names the problem
        if choice != "auto":
            return choice == "own"
        self.inject_config()
        return bool(BentoMLContainer.config.services[self.name].workers.get() != 1)

    @property
    def openapi_spec(self) -> SimpleNamespace:
        """Return misfit's OpenAPI document, in place of BentoML's."""
        return SimpleNamespace(asdict=openapi.document)

    def build_app(self, factory: ServiceAppFactory) -> ASGIApp:
        server = super().build_app(factory)
        settings = Settings()
        directories = {"": settings.bundle_directory, **settings.more_bundles}
        manifests = {name: store.read_manifest(directory) for name, directory in directories.items()}
        models = [model for name, each in manifests.items() for model in list_models(each, name).values()]
        # In front of BentoML's own page at /, and of its own routes.
        server.router.routes[:0] = [
            *static_pages.ROUTES,
            *list_routes(lambda: self.instance, settings.more_bundles),
            *open_inference.make_routes(models, lambda: self.instance),
        ]
        app = PathAllowlist(server)
        origins = settings.cors_origins
        return Cors(app, origins) if origins else app
