"""HTTP requests to the dispatcher: read the body, choose the parser, answer in the form that the client accepts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from service.api.endpoints import Endpoint
from service.transports import memory_footprint
from service.transports.admission import Ticket
from service.transports.dispatch import Answer, Dispatcher, Parsed
from service.transports.http.body_parsers import parse_images, parse_latents
from service.transports.http.middleware import until_sent
from service.transports.http.request_body import read_body, while_connected
from service.transports.http.responses import PNG, ZIP, respond, select_picture_type

FORMS: dict[str, memory_footprint.Form] = {PNG: "sheet", ZIP: "files"}


async def handle(request: Request, endpoint: Endpoint, dispatcher: Dispatcher) -> Response:
    """Return the response to a request of `endpoint`, or to the error in which it ends."""
    timeout_seconds = dispatcher.pipeline.settings.timeout_seconds
    return await respond(request, _answer(request, endpoint, dispatcher), timeout_seconds, dispatcher.metrics)


async def _answer(request: Request, endpoint: Endpoint, dispatcher: Dispatcher) -> Answer:
    if endpoint.takes == "nothing":
        return await dispatcher.describe()
    ticket = until_sent(request).enter_context(dispatcher.admission.ticket())
    form = FORMS.get(select_picture_type(request.headers.get("accept", "")), "pieces")
    parse = await _make_parser(request, endpoint, dispatcher, ticket)
    return await dispatcher.run(endpoint, parse, ticket, form, wait=partial(while_connected, request))


async def _make_parser(
    request: Request, endpoint: Endpoint, dispatcher: Dispatcher, ticket: Ticket
) -> Callable[[], Parsed]:
    """Return what parses the request's body, once the body is there and the ticket has taken its bytes."""
    settings, content_type = dispatcher.pipeline.settings, request.headers.get("content-type", "")
    body = await read_body(request, settings.max_body_bytes, settings.body_seconds, ticket)
    ticket.take_work(memory_footprint.of_parsing(content_type, len(body)))
    if endpoint.takes == "latents":
        return partial(parse_latents, content_type, body, dispatcher.pipeline.bundle.manifest.latent_dim)
    return partial(parse_images, content_type, request.query_params, body, settings, endpoint.image_options)
