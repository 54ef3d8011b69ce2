"""The two services as BentoML's workers run them: watched, and with what is ours in place of what is BentoML's."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import bentoml
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml.container import BentoMLContainer  # type: ignore[attr-defined]
from starlette.types import ASGIApp

from service.hosting import shutdown
from service.hosting.dispatcher_metrics import watch_queues
from service.hosting.path_allowlist import KnownPaths
from service.settings import Settings
from service.telemetry import logs, tracing
from service.transports.http import openapi


class Worker(bentoml.Service[Any]):
    """A service whose worker logs, and traces, as the settings say."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """What the worker serves: BentoML asks for it once, as the worker starts."""
        shutdown.end_with_supervisor()
        settings = Settings()
        logs.configure(settings.log_format, self.name)
        if settings.tracing:
            BentoMLContainer.tracer_provider.set(tracing.start(self.name))
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        # BentoML never cancels its timers: each would hold what belongs to its request, about 10 kB, for the whole of
        # the time that requests may take, however soon it is answered. That time is ours to watch.
        factory.timeout = None
        served = self.served_by(factory)
        # What is loaded by now stays: the collector need not go through all of it whenever an answer of thousands of
        # small records makes it look for garbage (measured: a third of the time that /explain takes for its reasons).
        gc.collect()
        gc.freeze()
        return tracing.Unlinked(served)

    def served_by(self, factory: ServiceAppFactory) -> ASGIApp:
        raise NotImplementedError


class Api(Worker):
    """The service that HTTP reaches, with our OpenAPI document in place of BentoML's, and no paths but those it has."""

    @property
    def openapi_spec(self) -> SimpleNamespace:
        return SimpleNamespace(asdict=openapi.document)

    def served_by(self, factory: ServiceAppFactory) -> ASGIApp:
        return KnownPaths(factory())


class Batching(Worker):
    """The service behind it, whose queues are watched."""

    def served_by(self, factory: ServiceAppFactory) -> ASGIApp:
        watch_queues(factory.dispatchers)
        app: ASGIApp = factory()
        return app
