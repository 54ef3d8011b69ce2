"""The client without a server: every use case in this process, by the pipeline that the service runs.

    with LocalClient("shapes3d") as misfit:
        scores = misfit.score(sorted(Path("batch").glob("*.png")), fdr=0.1)

Methods, arguments, options and answers are those of `service.client.Client`, and so are the numbers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Iterable
from dataclasses import replace
from functools import cached_property, partial
from os import PathLike
from typing import Any

import numpy as np
from pydantic import BaseModel

from service.api.endpoints import ENDPOINTS
from service.api.latents import check_latents
from service.api.options import Options
from service.api.requests import ImagesRequest, RequestBuilder
from service.bundle.store import Bundle
from service.client.calls import Call, CallError, Images, NamedImage, PathNames, check_array, name_images
from service.client.client import AsyncClient, Client
from service.decoding.pool import DecodePool
from service.errors import MisfitError, UndecodableImage
from service.images.decode import Content
from service.images.decode_budget import DecodeBudget
from service.inference import precision
from service.inference.local import LocalNetworks
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.pipeline import Pipeline
from service.settings import Settings

FOREVER = 10 * 365 * 24 * 3600.0


def load_bundle(bundle: str | PathLike[str] | None) -> Bundle:
    """Return a shipped bundle by its name, or that at a path; None is what MISFIT_BUNDLE names. Raises BundleError."""
    settings = Settings()
    if bundle is not None:
        settings = settings.model_copy(update={"bundle": str(bundle)})
    return precision.load(settings.bundle_directory, settings.precision)


def local_settings() -> Settings:
    """Return the settings without limits on what one request holds: nobody else is kept waiting."""
    names = ("max_images", "max_rows_in_flight", "max_values", "max_decode_bytes_in_flight")
    unlimited = dict.fromkeys(names, sys.maxsize)
    return Settings().model_copy(update={**unlimited, "timeout_seconds": FOREVER})


class LocalClient(Client):
    """A `service.client.Client` that needs no server: a bundle's networks run in this process.

    Image files are decoded in worker processes, as the service does, which start with the first image and end with the
    client. NumPy's BLAS runs on one thread from the first call on.
    """

    def __init__(self, bundle: str | PathLike[str] | None = None) -> None:
        """Load the bundle of that name, or at that path; by default the one that MISFIT_BUNDLE names.

        Raises BundleError.
        """
        self.bundle = load_bundle(bundle)
        self._start(_AsyncLocalClient(self.bundle))


class _AsyncLocalClient(AsyncClient):
    def __init__(self, bundle: Bundle) -> None:
        super().__init__("http://localhost", timeout=FOREVER)
        self._bundle = bundle

    @cached_property
    def _transport(self) -> LocalTransport:
        return LocalTransport(self._bundle)


class LocalTransport:
    """Answers calls by a pipeline of its own. It belongs to one event loop."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the networks. Raises CallError."""
        self._settings = local_settings()
        try:
            self._networks = LocalNetworks(bundle, require_gpu=self._settings.require_gpu)
        except MisfitError as error:
            raise to_call_error(error) from error
        self._decoder = DecodePool(self._settings)
        self.pipeline = Pipeline(bundle, self._networks, self._settings, decoder=self._decoder)

    def prepare(self, call: Call[Any], request_id: str) -> Call[Any]:
        return call

    async def send(self, prepared: Call[Any]) -> Any:
        try:
            return await self._answer(prepared)
        except MisfitError as error:
            raise to_call_error(error) from error

    async def stream(self, call: Call[Any], request_id: str) -> Any:
        images = await _gather(call.chunks or ())
        return await self.send(replace(call, method="Score", images=images, chunks=None))

    async def close(self) -> None:
        self._decoder.close()

    async def _answer(self, call: Call[Any]) -> BaseModel:
        endpoint = ENDPOINTS[call.method.lower()]
        if endpoint.takes == "nothing":
            return self.pipeline.describe(self._networks.provider)
        if endpoint.takes == "latents":
            dimensions = self.pipeline.bundle.manifest.latent_dim
            result = await self.pipeline.decode(check_latents(call.rows_of_latents, dimensions))
            return await asyncio.to_thread(_as_answer, result)
        request = await asyncio.to_thread(build_request, call, endpoint.image_options, self._settings)
        result = await getattr(self.pipeline, endpoint.name)(request)
        return await asyncio.to_thread(_as_answer, result)


def build_request(call: Call[Any], options_type: type[Options], settings: Settings) -> ImagesRequest[Any]:
    """Return the request that a call makes. No image is read yet. Raises InvalidInput or one of its kinds."""
    builder = RequestBuilder(settings, 0)
    for field, images in (("images", call.images), ("reference", call.reference)):
        if images is None:
            continue
        builder.get_uploads(field)
        if isinstance(images, np.ndarray):
            builder.shapes.append(images.shape)
        for image in _name(images):
            builder.add(field, image.id, image.read)
    builder.contexts += call.contexts
    builder.options = dict(call.specified_options)
    return replace(builder.build(options_type), budget=DecodeBudget.unlimited())


def to_call_error(error: MisfitError) -> CallError:
    """Return an error of the pipeline as a client raises it."""
    return CallError(code=error.code, message=error.message, hint=error.hint)


def _name(images: Images, first: int = 0, names: PathNames | None = None) -> list[NamedImage]:
    """Return images one by one. Those of an array are numbered from `first`. Raises what `name_images` raises."""
    if isinstance(images, np.ndarray):
        rows = check_array(images)
        return [NamedImage(str(first + row), partial(rows.__getitem__, row)) for row in range(len(rows))]
    return [NamedImage(image.id, partial(_read, image)) for image in name_images(images, first, names)]


def _read(image: NamedImage) -> Content:
    """Read an image. Raises UndecodableImage where its file cannot be read."""
    try:
        return image.read()
    except OSError as error:
        raise UndecodableImage(f"The file cannot be read: {error.strerror or error}.") from error


async def _gather(chunks: Iterable[Images] | AsyncIterable[Images]) -> list[NamedImage]:
    """Return the images of all chunks."""
    images: list[NamedImage] = []
    names = PathNames()
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            images += _name(chunk, len(images), names)
    else:
        for chunk in await asyncio.to_thread(list, chunks):
            images += _name(chunk, len(images), names)
    return images


def _as_answer(result: Any) -> BaseModel:
    if hasattr(result, "as_json"):
        result = result.as_json()
    answer: BaseModel = result.whole() if isinstance(result, ChunkedResponse) else result
    return answer
