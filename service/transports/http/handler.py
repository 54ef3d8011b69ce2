"""HTTP requests to the dispatcher: read the body, choose the parser, answer in the form that the client accepts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from service.api.endpoints import Endpoint
from service.api.schemas import ScoreResponse
from service.errors import NotAcceptable
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.explain.explanation import Explanation
from service.transports import memory_footprint, parse_cost
from service.transports.admission import Ticket
from service.transports.dispatch import Answer, Dispatcher, Parsed
from service.transports.http.body_parsers import parse_images, parse_latents
from service.transports.http.middleware import until_sent
from service.transports.http.negotiation import CSV, PNG, ZIP, select_media_type
from service.transports.http.request_body import read_body, while_connected
from service.transports.http.responses import build_error_response, respond
from service.transports.http.score_table import ScoreTable

# How a form is held while it is made. A table is made in pieces, as JSON is.
HELD: dict[str, memory_footprint.Form] = {PNG: "sheet", ZIP: "files"}


async def handle(request: Request, endpoint: Endpoint, dispatcher: Dispatcher) -> Response:
    """Return the response to a request of `endpoint`, or to the error in which it ends."""
    try:
        media_type = select_media_type(endpoint, ",".join(request.headers.getlist("accept")))
    except NotAcceptable as error:
        return build_error_response(error, request.scope)
    timeout_seconds = dispatcher.pipeline.settings.timeout_seconds
    work = _answer(request, endpoint, dispatcher, media_type)
    return await respond(request, work, timeout_seconds, dispatcher.metrics, media_type)


async def _answer(request: Request, endpoint: Endpoint, dispatcher: Dispatcher, media_type: str) -> Answer | ScoreTable:
    if endpoint.takes == "nothing":
        return await dispatcher.describe()
    ticket = until_sent(request).enter_context(dispatcher.admission.ticket())
    form = HELD.get(media_type, "pieces")
    parse, cost = await _make_parser(request, endpoint, dispatcher, ticket, media_type)
    answer = await dispatcher.run(endpoint, parse, cost, ticket, form, wait=partial(while_connected, request))
    if media_type != CSV:
        return answer
    response = answer.without_maps() if isinstance(answer, Explanation) else answer
    # Only endpoints that answer with an item for each image have a table among their forms.
    scored = cast("ChunkedResponse[ScoreResponse]", response)
    return ScoreTable(scored, [latent.name for latent in dispatcher.pipeline.bundle.manifest.latents])


async def _make_parser(
    request: Request, endpoint: Endpoint, dispatcher: Dispatcher, ticket: Ticket, media_type: str
) -> tuple[Callable[[], Parsed], int]:
    """Return what parses the request's body, and how long that takes, once the ticket has taken its bytes."""
    settings, content_type = dispatcher.pipeline.settings, request.headers.get("content-type", "")
    body = await read_body(request, settings.max_body_bytes, settings.body_seconds, ticket)
    ticket.take_work(memory_footprint.of_parsing(content_type, len(body)))
    cost = parse_cost.of_body(content_type, body)
    if endpoint.takes == "latents":
        return partial(parse_latents, content_type, body, dispatcher.pipeline.bundle.manifest.latent_dim), cost
    query, options_type = read_query(request.query_params), endpoint.image_options
    if media_type == PNG:
        options_type = endpoint.sheet_options
    elif endpoint.sheet_options is not options_type:
        query.pop("page", None)  # a default that a generated client sends along; only a sheet has pages
    return partial(parse_images, content_type, query, body, settings, options_type), cost


def read_query(parameters: QueryParams) -> dict[str, str | list[str]]:
    """Return the query's values by name: a text, or a list of texts where the name comes several times."""
    values: dict[str, list[str]] = {}
    for name, text in parameters.multi_items():  # once: a query may have thousands of names
        values.setdefault(name, []).append(text)
    return {name: texts if len(texts) > 1 else texts[0] for name, texts in values.items()}
