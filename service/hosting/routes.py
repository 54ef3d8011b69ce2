"""HTTP routes as BentoML declares them: one for each endpoint of the table."""

from __future__ import annotations

from typing import Any

import bentoml
from starlette.requests import Request
from starlette.responses import Response

from service.api.endpoints import ENDPOINTS, Endpoint
from service.hosting.io_descriptors import make_form
from service.transports.dispatch import Dispatcher
from service.transports.http.handler import handle


class Routes:
    """The base of a BentoML service with a method, and a route, for each endpoint. It needs a `dispatcher`."""

    dispatcher: Dispatcher


def _make_route(endpoint: Endpoint) -> Any:
    """Return the BentoML API method of an endpoint."""

    async def handler(self: Routes, request: Request) -> Response:
        return await handle(request, endpoint, self.dispatcher)

    handler.__name__ = endpoint.name
    handler.__doc__ = endpoint.summary
    return bentoml.api(route=f"/{endpoint.name}", input_spec=make_form(endpoint), output_spec=endpoint.answer)(handler)


for _endpoint in ENDPOINTS.values():
    setattr(Routes, _endpoint.name, _make_route(_endpoint))
