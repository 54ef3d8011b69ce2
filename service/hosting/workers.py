"""The classes of the two BentoML services. They add logs and traces, and correct BentoML where it does harm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import bentoml
from pydantic import ValidationError

from service.hosting.private_names import private_names, require, require_in_code
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

with private_names(__name__):
    from _bentoml_sdk.service import factory as service_factory
    from bentoml._internal.configuration.containers import BentoMLContainer

    require(BentoMLContainer, "remote_runner_mapping.get", "config.services")
    require(bentoml.Service, "to_asgi", "inject_config", "openapi_spec", "__attrs_post_init__")
    require_in_code(bentoml.Service.__attrs_post_init__, "dependencies")
    require_in_code(bentoml.Service.to_asgi, "is_main")
    require_in_code(service_factory.service, "service_class")


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
        from service.hosting import worker_app  # with what the supervisor does not need

        return worker_app.build(self, self.add_routes, is_main=is_main)

    def add_routes(self, server: Starlette) -> ASGIApp:
        """Return `server` with what a subclass adds."""
        return server


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
        from service.transports.http import openapi

        return SimpleNamespace(asdict=openapi.document)

    def add_routes(self, server: Starlette) -> ASGIApp:
        from service.hosting import worker_app

        return worker_app.add_api(server, lambda: self.instance)
