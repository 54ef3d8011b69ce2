"""Images to latents and latents to images, for requests of any size.

Rows go to the networks in chunks; every chunk waits in a fair queue, so that no request holds up the others.
"""

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
from service.core.detect.ood import OodCheck
from service.core.detect.reconstruction import familiar_error
from service.core.population import Familiarity
from service.core.types import Float32Array
from service.decoding.pool import Decoder
from service.fair_queue import FairQueue
from service.images import sample_range
from service.images.decode import Rows, Upload
from service.images.decode_budget import DecodeBudget
from service.images.reading import Reading
from service.images.spec import Resize, Uint8Array
from service.inference.backbone import BackboneHead
from service.inference.protocol import CheckedLatents, Networks
from service.pipeline.batch import DecodedImages, EncodedImages
from service.pipeline.hooks import Hooks
from service.settings import Settings

Row = TypeVar("Row", bound=np.generic)
Result = TypeVar("Result", bound=np.generic)

# Rows decoded and encoded at a time: while one chunk is encoded, the next one is decoded and sent.
CHUNK_ROWS = 128
# Chunks of one request under way at a time: a large request leaves room for small ones.
CHUNKS_IN_FLIGHT = 4
# Rows of all requests at the networks at a time: enough to keep the networks busy, few enough that an admitted row is
# soon done.
ROWS_AT_WORK = 1024
# Each call takes one of the hundred connections to the networks' process. Counting every call as so many rows leaves
# connections free for the readiness probe.
LEAST_ROWS = 16


@dataclass(frozen=True)
class ChunkedInference:
    """The networks of one bundle, shared by all requests."""

    bundle: Bundle
    networks: Networks
    decoder: Decoder
    settings: Settings
    hooks: Hooks

    async def encode(
        self,
        uploads: Sequence[Upload],
        resize: Resize,
        budget: DecodeBudget,
        reading: Reading,
        *,
        check: bool = False,
        screen: bool = False,
        keep_pixels: bool = False,
    ) -> EncodedImages:
        """Encode every usable image, in order; with `check`, also measure its foreignness where `can_check`.

        With `screen`, the images whose foreignness the bundle's screen can rule out are not measured.
        """
        run = self.networks.encode_checked if check and self.can_check else None
        if run is not None and screen and self.bundle.manifest.screen is not None:
            run = self.networks.encode_screened
        began = asyncio.get_running_loop().time()
        if 0 < len(uploads) <= CHUNK_ROWS:
            return await self._encode_chunk(uploads, resize, budget, reading, began, run, keep_pixels)
        semaphore = asyncio.Semaphore(CHUNKS_IN_FLIGHT)

        async def encode_chunk(start: int) -> EncodedImages:
            chunk, due = uploads[start : start + CHUNK_ROWS], began + start * self._seconds_per_row
            async with semaphore:
                return await self._encode_chunk(chunk, resize, budget, reading, due, run, keep_pixels)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(encode_chunk(start)) for start in range(0, len(uploads), CHUNK_ROWS)]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return EncodedImages.concatenate([self.no_images, *(task.result() for task in tasks)])

    async def read_pixels(
        self, uploads: Sequence[Upload], resize: Resize, budget: DecodeBudget, reading: Reading
    ) -> Uint8Array:
        """Decode again images (k, H, W, C), k >= 1, that were usable before, within a budget of their own."""
        parts = []
        for start in range(0, len(uploads), CHUNK_ROWS):
            with self.hooks.stage("decode"):
                chunk, spec = uploads[start : start + CHUNK_ROWS], self.bundle.manifest.image
                rows = await self.decoder.read(chunk, spec, resize, budget, reading.samples)
            for error in rows.errors.values():
                raise error
            parts.append(rows.pixels)
        return np.concatenate(parts)

    async def decode_and_reencode(self, latents: NDArray[np.float64]) -> DecodedImages:
        """Decode latents (k, L), k >= 1, and encode the images again."""
        with self.hooks.stage("draw"):
            images = await self.decode(latents.astype(np.float32))
        with self.hooks.stage("encode"):
            reencoded = await self._run_chunks(self.networks.encode, images)
        if self._head is not None:
            reencoded = self._head.with_files_of(reencoded, latents)
        return DecodedImages(latents, images, reencoded)

    async def measure_error(self, images: Uint8Array, latents: Float32Array) -> OodCheck:
        """Measure the foreignness of images (k, H, W, C), k >= 1, with latents (k, 2, L), that the screen passed."""
        familiarity = self._familiarity
        assert familiarity is not None, "what was screened can be checked"
        with self.hooks.stage("encode"):
            decoded = await self.decode(np.ascontiguousarray(latents[:, 0]))
            error = await asyncio.to_thread(familiar_error, images, decoded, familiarity)
        return ood.check(error.astype(np.float32), familiarity)

    async def decode(self, latents: Float32Array) -> Uint8Array:
        """Decode latents (k, L), k >= 1, to uint8 (k, H, W, C)."""
        return await self._run_chunks(self.networks.decode, latents)

    async def saliency(self, images: Uint8Array) -> AsyncIterator[Float32Array]:
        """Yield the heat maps, with sign, of images uint8 (k, H, W, C), k >= 1: chunks of (n, L, h, w)."""
        chunks = self._iterate_chunks(self.networks.saliency, images)
        for _ in range(0, len(images), CHUNK_ROWS):
            with self.hooks.stage("saliency"):
                maps = await anext(chunks)
            yield maps

    @property
    def can_check(self) -> bool:
        """Return whether the bundle can tell which images are unlike anything the model has seen."""
        return self._familiarity is not None

    @cached_property
    def no_images(self) -> EncodedImages:
        manifest = self.bundle.manifest
        latents = np.empty((0, 2, manifest.latent_dim), dtype=np.float32)
        return EncodedImages((), latents, np.empty((0, *manifest.image.shape), np.uint8), None, {})

    @property
    def _familiarity(self) -> Familiarity | None:
        """Return the population's errors; None where the model has nothing to compare an image with."""
        return self.bundle.population.familiarity if self.bundle.manifest.can_check else None

    async def _encode_chunk(
        self,
        uploads: Sequence[Upload],
        resize: Resize,
        budget: DecodeBudget,
        reading: Reading,
        due: float,
        run_checked: Callable[[Uint8Array], Awaitable[CheckedLatents]] | None,
        keep_pixels: bool,
    ) -> EncodedImages:
        familiarity = self._familiarity
        with self.hooks.stage("decode"):
            rows = await self._read(uploads, resize, budget, reading)
        ids = [upload.id for upload in uploads]
        if not len(rows.pixels):
            return replace(self.no_images, ids=ids, errors=rows.errors)
        # An array of its own: a slice of the rows would keep all of them in memory.
        pixels = rows.pixels if keep_pixels else self.no_images.pixels
        with self.hooks.stage("encode"):
            units = await self._queue.acquire(len(rows.pixels), due)
            try:
                if run_checked is None or familiarity is None:
                    latents, result = await self.networks.encode(rows.pixels), None
                else:
                    checked = await run_checked(rows.pixels)
                    latents, result = checked.latents, ood.check(checked.reconstruction_error, familiarity)
            finally:
                self._queue.release(units)
        if self._head is not None:
            latents = self._head.with_files(latents, rows.sizes)
        return EncodedImages(ids, latents, pixels, result, rows.errors)

    async def _read(self, uploads: Sequence[Upload], resize: Resize, budget: DecodeBudget, reading: Reading) -> Rows:
        """Return the rows of some images. Where the range of one is not known, first measure all images of the request.

        The budget counts the bytes of an image once, when it is first decoded, and all seconds.
        """
        spec = self.bundle.manifest.image
        rows = await self.decoder.read(uploads, spec, resize, budget, reading.samples)
        if rows.unknown:
            async with reading.lock:
                if not reading.samples.is_complete:
                    reading.set_measured(await self._measure(resize, budget, reading))
            again = budget.again()
            rows = await self.decoder.read(uploads, spec, resize, again, reading.samples)
            budget.spend(again.seconds)
        reading.note([upload.id for upload in uploads], rows.notes, len(rows.pixels))
        return rows

    async def _measure(self, resize: Resize, budget: DecodeBudget, reading: Reading) -> sample_range.Extents:
        """Return the extent of the samples of all images of the request whose range is not known."""
        extents = []
        for start in range(0, len(reading.uploads), CHUNK_ROWS):
            chunk, spec = reading.uploads[start : start + CHUNK_ROWS], self.bundle.manifest.image
            rows = await self.decoder.read(chunk, spec, resize, budget, reading.samples, measures=True)
            extents.append(rows.extents)
        return sample_range.merge(extents)

    async def _run_chunks(
        self, network: Callable[[NDArray[Row]], Awaitable[NDArray[Result]]], rows: NDArray[Row]
    ) -> NDArray[Result]:
        """Return what `network` computes for rows (n, ...), n >= 1."""
        return np.concatenate([result async for result in self._iterate_chunks(network, rows)])

    async def _iterate_chunks(
        self, network: Callable[[NDArray[Row]], Awaitable[NDArray[Result]]], rows: NDArray[Row]
    ) -> AsyncIterator[NDArray[Result]]:
        """Yield what `network` computes for rows (n, ...), chunk by chunk."""
        began = asyncio.get_running_loop().time()
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            async with self._queue.slot(len(chunk), began + start * self._seconds_per_row):
                result = await network(chunk)
            yield result

    @cached_property
    def _head(self) -> BackboneHead | None:
        """Return what knows the latents that are properties of files: the networks see only pixels."""
        return None if self.bundle.projection is None else BackboneHead(self.bundle.projection)

    @cached_property
    def _queue(self) -> FairQueue:
        return FairQueue(ROWS_AT_WORK, LEAST_ROWS)

    @property
    def _seconds_per_row(self) -> float:
        """Return how many seconds later than the previous row a row is due.

        The last row of the largest request is due half of the timeout after the request began. After that time, no new
        request overtakes it.
        """
        return self.settings.timeout_seconds / 2 / self.settings.max_images
