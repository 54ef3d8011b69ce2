"""The two services as BentoML's workers run them: logged, traced, and without the parts of BentoML that harm here."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import bentoml
from starlette.types import ASGIApp

from service.hosting import metric_files, shutdown
from service.hosting.dispatcher_metrics import measure_waits
from service.hosting.path_allowlist import PathAllowlist
from service.hosting.private_names import private_names, require, require_in_code
from service.settings import Settings
from service.telemetry import logs, tracing
from service.transports.http import openapi

with private_names(__name__):
    from _bentoml_impl.server.app import ServiceAppFactory
    from _bentoml_sdk.service import factory as service_factory
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.server.base_app import BaseAppFactory

    require(BentoMLContainer, "tracer_provider.set", "remote_runner_mapping.get")
    require(bentoml.Service, "to_asgi", "inject_config", "openapi_spec")
    require_in_code(bentoml.Service.to_asgi, "is_main")
    require_in_code(service_factory.service, "service_class")
    require_in_code(ServiceAppFactory.__init__, "is_main", "dispatchers")
    require_in_code(BaseAppFactory.__init__, "timeout")


def addresses() -> dict[str, str]:
    """Return the addresses at which BentoML's services reach each other, by the service's name.

    The mapping is BentoML's own: a change of it counts.
    """
    mapping: dict[str, str] = BentoMLContainer.remote_runner_mapping.get()
    return mapping


class Worker(bentoml.Service[Any]):
    """A service whose worker logs and traces as the settings say."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the ASGI application of the worker. BentoML asks for it once, as the worker starts."""
        shutdown.end_with_supervisor()
        settings = Settings()
        logs.configure(settings.log_format, self.name)
        metric_files.prepare()
        if settings.tracing:
            BentoMLContainer.tracer_provider.set(tracing.start(self.name))
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        # BentoML never cancels its timers: each keeps about 10 kB of its request until the timeout of BentoML, however
        # soon the request is answered. The service has a timeout of its own.
        factory.timeout = None
        app = self.build_app(factory)
        # Objects loaded by now stay. Without this the collector would go through all of them whenever an answer makes
        # thousands of small records (measured: a third of the time that /explain takes for its reasons).
        gc.collect()
        gc.freeze()
        return tracing.Unlinked(app)

    def build_app(self, factory: ServiceAppFactory) -> ASGIApp:
        """Return the ASGI application that `factory` makes, with the changes of the subclass."""
        raise NotImplementedError


class Api(Worker):
    """The service that HTTP reaches: with misfit's OpenAPI document, and no paths but those that exist."""

    @property
    def openapi_spec(self) -> SimpleNamespace:
        """The OpenAPI document, in place of BentoML's."""
        return SimpleNamespace(asdict=openapi.document)

    def build_app(self, factory: ServiceAppFactory) -> ASGIApp:
        return PathAllowlist(factory())


class Batching(Worker):
    """The service that runs the networks: the waits in its queues are measured."""

    def build_app(self, factory: ServiceAppFactory) -> ASGIApp:
        measure_waits(factory.dispatchers)
        app: ASGIApp = factory()
        return app
