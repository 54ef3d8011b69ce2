"""The one way of a request through the service, whatever the transport: parse, count, admit, run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from service.api.endpoints import Endpoint
from service.api.requests import ImagesRequest
from service.pipeline.chunked_response import Pieced
from service.pipeline.pipeline import Pipeline
from service.telemetry import logs
from service.telemetry.metrics import Metrics
from service.transports import memory_footprint
from service.transports.admission import Admission, Ticket

T = TypeVar("T")
# What a transport makes of a message: a request of images, or latents (n, L) to be decoded.
Parsed = ImagesRequest[Any] | NDArray[np.float64]
# How a transport waits for the work, and may end it, where its client leaves.
Wait = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]


class Pictured(Protocol):
    """An answer with pictures, in each of its forms."""

    def as_json(self) -> Pieced[BaseModel]: ...

    def as_sheet(self) -> bytes: ...

    def as_zip(self) -> Iterator[bytes]: ...


Answer = BaseModel | Pieced[BaseModel] | Pictured


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    return await work


@dataclass(frozen=True)
class Dispatcher:
    """Runs endpoints of the pipeline. `provider` says where the networks run."""

    pipeline: Pipeline
    admission: Admission
    metrics: Metrics
    provider: Callable[[], Awaitable[str]]

    async def run(
        self,
        endpoint: Endpoint,
        parse: Callable[[], Parsed],
        ticket: Ticket,
        form: memory_footprint.Form,
        *,
        kept_bytes: int = 0,
        wait: Wait = _to_its_end,
    ) -> Answer:
        """Return the pipeline's answer to one request, for which there is room on `ticket` until the answer is sent.

        `parse` runs in a thread. `kept_bytes` of what the ticket has taken so far stay taken when the work is done:
        those of a message that its transport still holds.
        Raises Overloaded or TooLarge where there is no room, and whatever `parse` and the pipeline raise.
        """
        request = await self._parsed(parse)
        del parse  # it holds the body
        count = request.size if isinstance(request, ImagesRequest) else len(request)
        logs.add_images(count)
        ticket.take_images(count)
        work_bytes = memory_footprint.of(request, self.pipeline.bundle, form)
        ticket.take_work(work_bytes)
        answer: Answer = await wait(getattr(self.pipeline, endpoint.name)(request))
        ticket.keep(kept_bytes + work_bytes)
        return answer

    async def describe(self) -> Answer:
        """Return the description of the model; nothing is parsed or counted."""
        return self.pipeline.describe(await self.provider())

    async def read_chunk(self, parse: Callable[[], ImagesRequest[Any]], ticket: Ticket) -> ImagesRequest[Any]:
        """Return one chunk of a stream, of which the ticket has room for one at a time, and for what stays of each."""
        chunk = await self._parsed(parse)
        logs.add_images(chunk.size)
        ticket.widen(chunk.size, 0)
        ticket.take_work(memory_footprint.of_chunk(chunk, self.pipeline.bundle))
        return chunk

    async def _parsed(self, parse: Callable[[], T]) -> T:
        with self.metrics.stage("parse"):
            return await asyncio.to_thread(parse)
