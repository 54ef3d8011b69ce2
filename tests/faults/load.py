"""Load on the service, over HTTP and gRPC: as much as it takes, or more than that, and what became of each request."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import bodies
import calls
import grpc
import numpy as np
from numpy.typing import NDArray

from service.protos.misfit.v1 import misfit_pb2 as pb

LARGE, SMALL = 350, 10  # images of a request
LARGE_SHARE, GRPC_SHARE = 0.5, 0.25
PATIENCE_SECONDS = 300


class Outcome(NamedTuple):
    """One request: when it was sent and answered (seconds), its images, and "ok", "refused" or what else came."""

    sent: float
    answered: float
    images: int
    result: str
    retry_after: bool = False

    @property
    def seconds(self) -> float:
        return self.answered - self.sent


@dataclass
class Sender:
    """Sends requests of so many images, prepared beforehand; nobody looks into the answers."""

    session: aiohttp.ClientSession
    channel: grpc.aio.Channel
    url: str
    frames: NDArray[np.uint8]

    def __post_init__(self) -> None:
        batches = {count: np.resize(self.frames, (count, *self.frames.shape[1:])) for count in (LARGE, SMALL)}
        self._bodies = {count: bodies.as_npy(batch) for count, batch in batches.items()}
        self._messages = {
            count: pb.ScoreRequest(images=calls.tensor(batch)).SerializeToString() for count, batch in batches.items()
        }
        self._score = self.channel.unary_unary("/misfit.v1.MisfitService/Score")

    async def http(self, images: int) -> Outcome:
        content_type, content = self._bodies[images]
        sent = time.perf_counter()
        try:
            async with self.session.post(
                f"{self.url}/score", data=io.BytesIO(content), headers={"Content-Type": content_type}
            ) as answer:
                await answer.read()
                result = {200: "ok", 429: "refused"}.get(answer.status, str(answer.status))
                return Outcome(sent, time.perf_counter(), images, result, "Retry-After" in answer.headers)
        except aiohttp.ClientError as error:
            return Outcome(sent, time.perf_counter(), images, repr(error))

    async def grpc(self, images: int) -> Outcome:
        sent = time.perf_counter()
        try:
            await self._score(self._messages[images], timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            result = "refused" if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else error.code().name
            retry_after = "retry-after" in dict(error.trailing_metadata())
            return Outcome(sent, time.perf_counter(), images, result, retry_after)
        return Outcome(sent, time.perf_counter(), images, "ok")


class Mix:
    """Requests large and small, over HTTP and gRPC, at random but always in the same order."""

    def __init__(self, sender: Sender) -> None:
        self._sender, self._chance = sender, random.Random(1)

    def next(self) -> Coroutine[Any, Any, Outcome]:
        send = self._sender.grpc if self._chance.random() < GRPC_SHARE else self._sender.http
        return send(LARGE if self._chance.random() < LARGE_SHARE else SMALL)


async def peak(sender: Sender, clients: int, seconds: float) -> list[Outcome]:
    """As many as the service answers: each client sends its next request when it has the answer to the last."""
    mix, end = Mix(sender), time.perf_counter() + seconds

    async def client() -> list[Outcome]:
        outcomes = []
        while time.perf_counter() < end:
            outcomes.append(await mix.next())
        return outcomes

    return [outcome for outcomes in await asyncio.gather(*(client() for _ in range(clients))) for outcome in outcomes]


async def offered(sender: Sender, images_per_second: float, seconds: float) -> list[Outcome]:
    """So many images a second, at random moments (Poisson), whatever becomes of them."""
    mix, chance, tasks = Mix(sender), random.Random(2), []
    requests_per_second = images_per_second / (LARGE_SHARE * LARGE + (1 - LARGE_SHARE) * SMALL)
    began = at = time.perf_counter()
    while (at := at + chance.expovariate(requests_per_second)) < began + seconds:
        await asyncio.sleep(max(at - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(mix.next()))
    return await asyncio.gather(*tasks)


def goodput(outcomes: list[Outcome]) -> float:
    """Images of answered requests a second, from the first request sent to the last answered."""
    good = [outcome for outcome in outcomes if outcome.result == "ok"]
    span = max(outcome.answered for outcome in good) - min(outcome.sent for outcome in outcomes)
    return sum(outcome.images for outcome in good) / span


def milliseconds(outcomes: list[Outcome], share: float) -> float:
    """That quantile of how long they took."""
    return 1000 * float(np.quantile([outcome.seconds for outcome in outcomes], share))
