"""Images to latents and latents to pictures, for requests of any size: in chunks, each of which waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.bundle.store import Bundle
from service.core.detect import ood
from service.core.types import Float32Array, Float64Array
from service.decoding.pool import Decoder
from service.fair_queue import Turns
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.spec import Resize, Uint8Array
from service.inference.protocol import Networks
from service.pipeline.batch import Drawn, Encoded
from service.pipeline.hooks import Observer
from service.settings import Settings

Row = TypeVar("Row", bound=np.generic)
Result = TypeVar("Result", bound=np.generic)

# Rows decoded and encoded at a time: while one chunk is encoded the next is decoded and on its way.
CHUNK_ROWS = 128
# Chunks of one request under way at a time: a large request leaves room for the small ones.
CHUNKS_IN_FLIGHT = 4
# Rows of all requests at the networks at a time: enough that these never wait for more, few enough that a row which is
# let in is through in no time.
ROWS_AT_WORK = 1024
# Each call takes one of the hundred connections to the networks' process: with this as the least that a call counts
# for, there are never so many calls that a probe would find none free.
LEAST_ROWS = 16


@dataclass(frozen=True)
class Coder:
    """The networks of one bundle, shared by all requests."""

    bundle: Bundle
    networks: Networks
    decoder: Decoder
    settings: Settings
    observer: Observer

    async def encode(
        self,
        uploads: Sequence[Upload],
        resize: Resize,
        budget: DecodeBudget,
        *,
        check: bool = False,
        keep_pixels: bool = False,
    ) -> Encoded:
        """The latents of whatever can be used, in order; `check` tells the foreign ones, where the bundle can."""
        gate = asyncio.Semaphore(CHUNKS_IN_FLIGHT)
        began = asyncio.get_running_loop().time()

        async def encode_chunk(at: int) -> Encoded:
            chunk, due = uploads[at : at + CHUNK_ROWS], began + at * self._seconds_per_row
            async with gate:
                return await self._encode_chunk(chunk, resize, budget, due, check, keep_pixels)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(encode_chunk(at)) for at in range(0, len(uploads), CHUNK_ROWS)]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return Encoded.concatenate([self.nothing, *(task.result() for task in tasks)])

    async def pixels(self, uploads: Sequence[Upload], resize: Resize, budget: DecodeBudget) -> Uint8Array:
        """Read again images (k, H, W, C), k >= 1, that could be read before, within a budget of their own."""
        parts = []
        for at in range(0, len(uploads), CHUNK_ROWS):
            with self.observer.stage("decode"):
                chunk, spec = uploads[at : at + CHUNK_ROWS], self.bundle.manifest.image
                rows = await self.decoder.read(chunk, spec, resize, budget)
            for error in rows.errors.values():
                raise error
            parts.append(rows.pixels)
        return np.concatenate(parts)

    async def draw(self, latents: Float64Array) -> Drawn:
        """Decode latents (k, L), k >= 1, and look at the pictures with the encoder's eyes."""
        with self.observer.stage("draw"):
            images = await self.decode(latents.astype(np.float32))
        with self.observer.stage("encode"):
            return Drawn(latents, images, await self._in_turns(self.networks.encode, images))

    async def decode(self, latents: Float32Array) -> Uint8Array:
        """Latents (k, L), k >= 1, to uint8 (k, H, W, C)."""
        return await self._in_turns(self.networks.decode, latents)

    async def saliency(self, images: Uint8Array) -> AsyncIterator[Float32Array]:
        """uint8 (k, H, W, C), k >= 1, to signed heat maps (k, L, h, w), of some images at a time."""
        chunks = self._chunks(self.networks.saliency, images)
        for _ in range(0, len(images), CHUNK_ROWS):
            with self.observer.stage("saliency"):
                maps = await anext(chunks)
            yield maps

    @property
    def nothing(self) -> Encoded:
        """No images."""
        manifest = self.bundle.manifest
        latents = np.empty((0, 2, manifest.latent_dim), dtype=np.float32)
        return Encoded((), latents, np.empty((0, *manifest.image.shape), np.uint8), None, {})

    async def _encode_chunk(
        self,
        uploads: Sequence[Upload],
        resize: Resize,
        budget: DecodeBudget,
        due: float,
        check: bool,
        keep_pixels: bool,
    ) -> Encoded:
        spec, familiarity = self.bundle.manifest.image, self.bundle.population.familiarity
        with self.observer.stage("decode"):
            rows = await self.decoder.read(uploads, spec, resize, budget)
        ids = [upload.id for upload in uploads]
        if not len(rows.pixels):
            return replace(self.nothing, ids=ids, errors=rows.errors)
        # Not a slice of them, which would keep them all.
        pixels = rows.pixels if keep_pixels else self.nothing.pixels
        with self.observer.stage("encode"):
            async with self._turns.turn(len(rows.pixels), due):
                if not check or familiarity is None:
                    return Encoded(ids, await self.networks.encode(rows.pixels), pixels, None, rows.errors)
                found = await self.networks.encode_checked(rows.pixels)
        latents = found[:, :-1].reshape(len(found), 2, -1)
        return Encoded(ids, latents, pixels, ood.check(found[:, -1], familiarity), rows.errors)

    async def _in_turns(
        self, network: Callable[[NDArray[Row]], Awaitable[NDArray[Result]]], rows: NDArray[Row]
    ) -> NDArray[Result]:
        """What `network` makes of rows (n, ...), n >= 1."""
        return np.concatenate([result async for result in self._chunks(network, rows)])

    async def _chunks(
        self, network: Callable[[NDArray[Row]], Awaitable[NDArray[Result]]], rows: NDArray[Row]
    ) -> AsyncIterator[NDArray[Result]]:
        """The same chunk by chunk."""
        began = asyncio.get_running_loop().time()
        for at in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[at : at + CHUNK_ROWS]
            async with self._turns.turn(len(chunk), began + at * self._seconds_per_row):
                result = await network(chunk)
            yield result

    @cached_property
    def _turns(self) -> Turns:
        return Turns(ROWS_AT_WORK, LEAST_ROWS)

    @property
    def _seconds_per_row(self) -> float:
        """How much later than the row before it a row is due.

        Half of its time after it began, the last row of the largest request is overtaken by none that comes.
        """
        return self.settings.timeout_seconds / 2 / self.settings.max_images
