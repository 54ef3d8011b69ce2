"""An inference request from its reading to its answer: the same for HTTP and gRPC, through the one dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from service import short_work
from service.pipeline.chunked_response import ChunkedResponse
from service.short_work import SHORT_BYTES
from service.transports import parse_cost
from service.transports.admission import Ticket
from service.transports.dispatch import Dispatcher, Wait, finish
from service.transports.open_inference import answers, codec
from service.transports.open_inference.answers import InferResponse
from service.transports.open_inference.codec import InferRequest
from service.transports.open_inference.models import Model


async def infer(
    dispatcher: Dispatcher,
    model: Model,
    read: Callable[[], InferRequest],
    ticket: Ticket,
    *,
    sent_bytes: int,
    kept_bytes: int = 0,
    wait: Wait = finish,
) -> InferResponse:
    """Return the answer of `model` to the request that `read` returns, in a thread unless that takes no time.

    sent_bytes  of the body or message
    kept_bytes  as in `Dispatcher.run`, which says what is raised
    """
    cost = parse_cost.of_uncounted(sent_bytes)
    with dispatcher.metrics.stage("parse"):
        request = await short_work.run(cost <= SHORT_BYTES, read)
        outputs = codec.select_outputs(model, request)
    del read  # it holds the body
    pipeline = dispatcher.pipeline
    latent_dim = pipeline.bundle.manifest.latent_dim
    parse = partial(codec.parse, model, request, outputs, pipeline.settings, sent_bytes, latent_dim)
    answer = await dispatcher.run(model.endpoint, parse, cost, ticket, "message", kept_bytes=kept_bytes, wait=wait)
    is_short = isinstance(answer, ChunkedResponse) and answer.is_short
    with dispatcher.metrics.stage("serialise"):
        return await short_work.run(is_short, answers.build_response, model, request, outputs, answer)
