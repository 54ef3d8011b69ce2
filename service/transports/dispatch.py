"""The dispatcher: every request passes through it, over every transport. It parses, counts, admits and runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from service.api.endpoints import Endpoint
from service.api.options import ComparingOptions
from service.api.requests import ImagesRequest
from service.core.types import Float64Array
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.explain.score_sheet import ScoreSheet
from service.pipeline.pipeline import Pipeline
from service.short_work import MEDIUM_BYTES, SHORT_BYTES, Lane
from service.telemetry import logs
from service.telemetry.metrics import Metrics
from service.transports import memory_footprint
from service.transports.admission import Admission, Ticket

T = TypeVar("T")
# The parsed form of a message: a request of images, or latents (n, L) to decode.
Parsed = ImagesRequest[Any] | Float64Array
# A transport's function that awaits the work. It may end the work if the client leaves.
Wait = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]


class PictureAnswer(Protocol):
    """An answer with pictures: as JSON, as a contact sheet or as a zip."""

    def as_json(self) -> ChunkedResponse[BaseModel]: ...

    def as_sheet(self) -> bytes: ...

    def as_zip(self) -> Iterator[bytes]: ...


Answer = BaseModel | ChunkedResponse[BaseModel] | PictureAnswer | ScoreSheet


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, whether its client still waits or not."""
    return await work


@dataclass(frozen=True)
class Dispatcher:
    """Runs the endpoints of a pipeline.

    provider  returns the execution provider that the networks run on
    parsing   runs what parses bodies of medium size
    """

    pipeline: Pipeline
    admission: Admission
    metrics: Metrics
    provider: Callable[[], Awaitable[str]]
    parsing: Lane = field(default_factory=partial(Lane, MEDIUM_BYTES))

    async def run(
        self,
        endpoint: Endpoint,
        parse: Callable[[], Parsed],
        cost: int,
        ticket: Ticket,
        form: memory_footprint.Form,
        *,
        kept_bytes: int = 0,
        wait: Wait = finish,
    ) -> Answer:
        """Return the pipeline's answer to one request. Its room stays taken on `ticket` until the answer is sent.

        endpoint    the endpoint to run
        parse       makes the request from its body; it runs in a thread unless that takes no time
        cost        how long it takes, as `parse_cost` estimates it
        form        how the transport holds the answer, which decides how much memory the answer takes
        kept_bytes  bytes on the ticket that stay taken after the work, of a message that the transport still holds
        wait        awaits the work, and may end it if the client has left

        Raises Overloaded or TooLarge if there is no room, and whatever `parse` and the pipeline raise.
        """
        request = await self._parse(parse, cost)
        del parse  # it holds the body
        count = request.size if isinstance(request, ImagesRequest) else len(request)
        logs.add_images(count)
        ticket.take_images(count)
        work_bytes = memory_footprint.of(request, self.pipeline.bundle, form)
        ticket.take_work(work_bytes)
        # A sheet of scores shows pixels, which scores alone have no use for.
        is_score_sheet = endpoint.name == "score" and form == "sheet"
        use_case = getattr(self.pipeline, "score_sheet" if is_score_sheet else endpoint.name)
        answer: Answer = await wait(use_case(request))
        ticket.keep(kept_bytes + work_bytes)
        return answer

    async def describe(self) -> Answer:
        """Return the description of the model. It needs no room."""
        return self.pipeline.describe(await self.provider())

    async def read_chunk(
        self, parse: Callable[[], ImagesRequest[Any]], cost: int, ticket: Ticket, options: ComparingOptions | None
    ) -> ImagesRequest[Any]:
        """Return one chunk of a stream. The ticket has room for one chunk at a time, and for what remains of each.

        cost     as in `run`
        options  those of the stream; None for its first chunk, which brings them
        """
        chunk = await self._parse(parse, cost)
        logs.add_images(chunk.size)
        ticket.widen(chunk.size, 0)
        ticket.take_work(memory_footprint.of_chunk(chunk, self.pipeline.bundle, options or chunk.options))
        return chunk

    async def _parse(self, parse: Callable[[], T], cost: int) -> T:
        with self.metrics.stage("parse"):
            return parse() if cost <= SHORT_BYTES else await self.parsing.run(cost, parse)
