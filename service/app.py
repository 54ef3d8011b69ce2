"""The BentoML services: `Inference` runs the networks, `Misfit` is the API in front of it.

Only row-wise work is batchable: `Inference` merges the rows of all requests as traffic has it, and
every statistic is computed in `Misfit`, per request, once its rows are back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service import bundle, openapi
from service.admission import Admission
from service.errors import BundleError, InferenceUnavailable
from service.http import ErrorBodies, answer, read_body, while_connected
from service.pipeline import Pipeline
from service.requests import ScoreRequest, parse
from service.runtime import Networks
from service.schemas import Description, ScoreOptions, ScoreResponse
from service.settings import Settings, warn_of_unknown_variables

# BentoML answers 503 for what took longer, after doing the work: `Admission` turns requests away earlier.
MAX_LATENCY_MS = 60_000
MAX_ADAPTIVE_BATCH = 1024
# Longer than any MISFIT_TIMEOUT_SECONDS in earnest: that one answers in our own words.
TRANSPORT_TIMEOUT = 3600
PROBE_SECONDS = 3
# By default BentoML closes the connections to a service after 100 calls, whatever is still under way on them.
NEVER_RECONNECT = {"max_requests": 2**31, "max_age": 1e9}


@bentoml.service(
    workers=1,
    threads=1,
    traffic={"timeout": TRANSPORT_TIMEOUT},
    runner_connection=NEVER_RECONNECT,
    logging={"access": {"enabled": False}},
)
class Inference:
    """The networks of one bundle, batching the rows of all requests."""

    def __init__(self) -> None:
        settings = Settings()
        self.networks = Networks(bundle.load(settings.bundle_directory), require_gpu=settings.require_gpu)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.networks.encode(images)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        return self.networks.decode(latents)

    @bentoml.api(batchable=True, max_batch_size=MAX_ADAPTIVE_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def saliency(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.networks.saliency(images)

    @bentoml.api
    def provider(self) -> str:
        return self.networks.provider


class _Unread(bentoml.IODescriptor):
    """What an endpoint is called with in place of its declared fields: the request, body unread."""

    request: Any


class DocumentedService(bentoml.Service[Any]):
    """A BentoML service that publishes our OpenAPI document in place of BentoML's."""

    @property
    def openapi_spec(self) -> SimpleNamespace:
        return SimpleNamespace(asdict=openapi.document)


class ScoreForm(bentoml.IODescriptor):
    """The multipart form of /score: its fields are declared so that BentoML's own clients can fill it in.

    It is never parsed by BentoML, which would fetch URLs and knows no limits: `service.requests` does it.
    """

    images: list[Path] = Field(description="image files, or npy, zip or tar files of images")
    reference: list[Path] = Field(default=[], description="normal images to compare with, in the same forms")
    options: ScoreOptions = Field(default=ScoreOptions(), description="how to score")

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> bentoml.IODescriptor:
        return _Unread.model_construct(request=request)


class DescribeForm(bentoml.IODescriptor):
    """/describe takes nothing."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> bentoml.IODescriptor:
        return _Unread.model_construct(request=request)


@bentoml.service(workers=1, traffic={"timeout": TRANSPORT_TIMEOUT}, service_class=DocumentedService)
class Misfit:
    """Finds the images that do not belong in their batch."""

    inference = bentoml.depends(Inference)

    @bentoml.on_deployment
    def _refuse_early() -> None:
        """Before any process starts: one line about what is wrong, in place of a trace from each of them."""
        warn_of_unknown_variables()
        try:
            bundle.load(Settings().bundle_directory)
        except (BundleError, ValidationError) as error:
            raise SystemExit(f"misfit cannot start: {error}") from None

    def __init__(self) -> None:
        self.settings = Settings()
        self.pipeline = Pipeline(bundle.load(self.settings.bundle_directory), self._encode, self.settings)
        self.admission = Admission(self.settings.max_rows_in_flight, self.settings.max_bytes_in_flight)

    @bentoml.api(route="/score", input_spec=ScoreForm, output_spec=ScoreResponse)
    async def score(self, request: Request) -> Response:
        """Score every image by how far it lies from the others, or from a reference set."""
        return await answer(request, self._score(request), self.settings.timeout_seconds)

    @bentoml.api(route="/describe", input_spec=DescribeForm, output_spec=Description)
    async def describe(self, request: Request) -> Response:
        """The model, its latents, the limits, and where the networks run."""
        return await answer(request, self._describe(), self.settings.timeout_seconds)

    async def _score(self, request: Request) -> BaseModel:
        with self.admission.ticket() as ticket:
            body = await read_body(request, self.settings.max_body_bytes, ticket)
            content_type = request.headers.get("content-type", "")
            score_request: ScoreRequest = await asyncio.to_thread(
                parse, content_type, request.query_params, body, self.settings
            )
            ticket.take_images(score_request.size)
            return await while_connected(request, self.pipeline.score(score_request))

    async def _describe(self) -> BaseModel:
        return self.pipeline.describe(await self._ask("provider"))

    async def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        latents: NDArray[np.float32] = await self._ask("encode", images)
        return latents

    async def _ask(self, method: str, *arguments: object) -> Any:
        """The result of one of Inference's methods, all of them pure. Raises InferenceUnavailable."""
        call = getattr(self.inference.to_async, method)
        try:
            try:
                return await self._while_ready(call(*arguments))
            except aiohttp.ServerDisconnectedError:  # an idle connection that was just being closed: use another
                return await self._while_ready(call(*arguments))
        except (aiohttp.ClientError, BentoMLException, TimeoutError) as error:
            raise InferenceUnavailable(
                f"The networks' process does not answer: {type(error).__name__}.",
                "It may be starting, or gone: GET /readyz tells when it is back.",
            ) from error

    async def _while_ready(self, call: Coroutine[Any, Any, Any]) -> Any:
        """What `call` returns. Raises TimeoutError once Inference is gone: its socket outlives it, and would wait."""
        task = asyncio.create_task(call)
        try:
            while not (await asyncio.wait({task}, timeout=PROBE_SECONDS))[0]:
                if not await self.__is_ready__():
                    raise TimeoutError
            return task.result()
        finally:
            task.cancel()

    async def __is_alive__(self) -> bool:
        """Misfit without Inference is of no use: liveness fails, so that both are restarted."""
        return await self.__is_ready__()

    async def __is_ready__(self) -> bool:
        try:
            return bool(await self.inference.to_async.is_ready(timeout=PROBE_SECONDS))
        except (aiohttp.ClientError, TimeoutError):
            return False


Misfit.add_asgi_middleware(ErrorBodies)  # type: ignore[attr-defined]
