"""The one flow from uploads to answers, whatever the transport: HTTP, gRPC and offline call these functions.

uploads -> rows (uint8, each with its own error) -> latents -> context and scores -> attributions or edits -> answer
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service import answers, explanation, foreign, gallery, scoring
from service.batch import Batch, Encoded
from service.bundle import Bundle
from service.context import Context, Estimator
from service.errors import InvalidInput, MisfitError
from service.explanation import Explanation
from service.gallery import Gallery, Plan
from service.images import Resize, Rows, Upload, read_rows
from service.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    SampleOptions,
    ScoreOptions,
    ScoringOptions,
    TraverseOptions,
)
from service.portable import from_portable, to_portable
from service.requests import ImagesRequest
from service.schemas import Description, EncodeResponse, FitResponse, Limits, ScoreResponse
from service.settings import Settings

Float32Array = NDArray[np.float32]
Uint8Array = NDArray[np.uint8]
Row = TypeVar("Row", bound=np.generic)
Result = TypeVar("Result", bound=np.generic)

# Rows decoded and encoded at a time: while one chunk is encoded the next is decoded and on its way.
CHUNK_ROWS = 128
# Chunks of one request under way at a time: a large request leaves room for the small ones.
CHUNKS_IN_FLIGHT = 4


class Networks(Protocol):
    """The networks, row by row; the transport says where they run."""

    async def encode(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to latents (n, 2, L)."""

    async def decode(self, latents: Float32Array) -> Uint8Array:
        """Latents (n, L) to uint8 (n, H, W, C)."""

    async def saliency(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to signed heat maps (n, L, h, w) of where each latent's mean is read."""


@dataclass(frozen=True)
class Pipeline:
    bundle: Bundle
    networks: Networks
    settings: Settings

    def __post_init__(self) -> None:
        # The matrices are tiny: BLAS threads would wait for each other longer than they compute.
        threadpool_limits(limits=1, user_api="blas")

    async def score(self, request: ImagesRequest[ScoreOptions]) -> ScoreResponse:
        """Raises InvalidInput where no image, or no reference image, can be used."""
        batch = await self._batch(request)
        return await asyncio.to_thread(answers.scored, batch, request.options, self.bundle)

    async def explain(self, request: ImagesRequest[ExplainOptions]) -> Explanation:
        """As /score, with the reasons: attributions of every image and heat maps of those that the options name."""
        options = request.options
        drawing = options.heat_maps != "none" and self.bundle.manifest.has_saliency
        batch = await self._batch(request, keep_pixels=drawing)
        if options.heat_maps != "none" and not drawing:
            options = options.model_copy(update={"heat_maps": "none"})
            warning = "This bundle has no saliency.onnx, so there are no heat maps: export it again."
            batch = replace(batch, context=replace(batch.context, warnings=(*batch.context.warnings, warning)))
        mapped = answers.mapped(batch, options)
        explained, maps = await asyncio.gather(
            asyncio.to_thread(answers.explained, batch, mapped, options, self.bundle), self._maps(batch, mapped)
        )
        return await asyncio.to_thread(explanation.of, batch, explained, maps, self.bundle)

    async def _maps(self, batch: Batch, mapped: NDArray[np.intp]) -> Float32Array:
        """The heat maps (m, L, h, w) of the images in the rows `mapped` (m,), less the map of a typical image."""
        if len(mapped) == 0:
            return np.empty(0, dtype=np.float32)
        shown = np.concatenate([await self._typical(batch), batch.images.pixels[mapped]])
        maps = await self._rows(self.networks.saliency, shown)
        difference: Float32Array = maps[1:] - maps[0]
        return difference

    async def _typical(self, batch: Batch) -> Uint8Array:
        """What heat maps are compared with, (1, H, W, C): the batch's most typical image, or a context's middle."""
        if batch.context.source == "batch" and batch.typical is not None:
            return batch.images.pixels[batch.typical : batch.typical + 1]
        return await self.networks.decode(batch.context.location[None].astype(np.float32))

    async def fit(self, request: ImagesRequest[FitOptions]) -> FitResponse:
        """The context of the request's images, merged with the contexts that it brings."""
        contexts = [from_portable(context, self.bundle) for context in request.contexts]
        errors: dict[int, MisfitError] = {}
        if request.images:
            images = await self._encode(request.images, request.options, "images")
            contexts.append(await asyncio.to_thread(self._fit, images, request.options))
            errors = images.errors
        context = await asyncio.to_thread(scoring.merge, contexts, self.bundle.population)
        return FitResponse(
            model=self.bundle.manifest.model,
            context=to_portable(context, self.bundle.manifest.bundle_id),
            errors=answers.errors_by_id(request.images, errors),
        )

    async def edit(self, request: ImagesRequest[EditOptions]) -> Gallery:
        batch = await self._batch(request, keep_pixels=True)
        return await self._draw(await asyncio.to_thread(gallery.plan_edit, batch, request.options, self.bundle))

    async def traverse(self, request: ImagesRequest[TraverseOptions]) -> Gallery:
        batch = await self._batch(request)
        return await self._draw(await asyncio.to_thread(gallery.plan_traverse, batch, request.options, self.bundle))

    async def interpolate(self, request: ImagesRequest[InterpolateOptions]) -> Gallery:
        batch = await self._batch(request)
        return await self._draw(await asyncio.to_thread(gallery.plan_interpolate, batch, request.options, self.bundle))

    async def sample(self, request: ImagesRequest[SampleOptions]) -> Gallery:
        batch = await self._batch(request)
        return await self._draw(await asyncio.to_thread(gallery.plan_sample, batch, request.options, self.bundle))

    async def encode(self, request: ImagesRequest[EncodeOptions]) -> EncodeResponse:
        images = await self._encode(request.images, request.options, "images")
        return await asyncio.to_thread(answers.encoded, images, self.bundle)

    async def decode(self, latents: NDArray[np.float64]) -> Gallery:
        """Latents (n, L), as `service.requests.parse_latents` checked them."""
        return await self._draw(gallery.plan_decode(latents))

    def describe(self, provider: str) -> Description:
        manifest = self.bundle.manifest
        return Description(
            bundle_id=manifest.bundle_id,
            model=manifest.model,
            image=manifest.image,
            latent_dim=manifest.latent_dim,
            latents=list(manifest.latents),
            metrics=dict(manifest.metrics),
            estimators=list(get_args(Estimator)),
            default_estimator=scoring.DEFAULT_ESTIMATOR,
            provider=provider,
            limits=Limits(**self.settings.model_dump(include=set(Limits.model_fields))),
        )

    async def _batch(self, request: ImagesRequest[ScoringOptions], keep_pixels: bool = False) -> Batch:
        """The request's images, encoded and scored against their context."""
        options, population = request.options, self.bundle.population
        context: Context | None = None
        if request.contexts:
            context = scoring.merge([from_portable(given, self.bundle) for given in request.contexts], population)
        images = await self._encode(request.images, options, "images", keep_pixels)
        if request.reference is not None:
            reference = await self._encode(request.reference, options, "reference images")
            context = await asyncio.to_thread(self._fit, reference, options)
        if not request.images:
            assert context is not None, "a request without images was refused unless it brought a context"
            return Batch(images, context, None)
        scores = await asyncio.to_thread(
            scoring.score,
            images.latents,
            population,
            estimator=options.estimator,
            threshold=options.threshold,
            fdr=options.fdr,
            context=context,
            foreignness=None if images.check is None else images.check.foreignness,
        )
        warnings = (*scores.context.warnings, *self._unchecked(options))
        return Batch(images, replace(scores.context, warnings=warnings), scores)

    def _fit(self, images: Encoded, options: FitOptions) -> Context:
        """The context of images that were sent to be one."""
        native = images.native
        if len(native) == 0:
            raise InvalidInput(
                f"All {len(images.latents)} images are unlike anything that the model has seen.",
                "Serve a bundle that was trained on such images, or turn the check off with foreign=off.",
            )
        context = scoring.fit(native, self.bundle.population, estimator=options.estimator)
        unused = answers.unused(images)
        return replace(context, warnings=(*context.warnings, unused)) if unused else context

    def _unchecked(self, options: FitOptions) -> tuple[str, ...]:
        if options.foreign == "off" or self.bundle.population.familiarity is not None:
            return ()
        return ("This bundle cannot tell images that are unlike anything the model has seen: export it again.",)

    async def _draw(self, plan: Plan) -> Gallery:
        """Decode what was planned, and look at it with the encoder's eyes."""
        images = await self._rows(self.networks.decode, plan.latents.astype(np.float32))
        latents = await self._rows(self.networks.encode, images)
        return await asyncio.to_thread(gallery.finish, plan, images, latents, self.bundle)

    async def _rows(
        self, network: Callable[[NDArray[Row]], Awaitable[NDArray[Result]]], rows: NDArray[Row]
    ) -> NDArray[Result]:
        """What `network` makes of rows (n, ...), n >= 1, chunk by chunk."""
        return np.concatenate([await network(rows[at : at + CHUNK_ROWS]) for at in range(0, len(rows), CHUNK_ROWS)])

    async def _encode(
        self, uploads: Sequence[Upload], options: FitOptions | EncodeOptions, what: str, keep_pixels: bool = False
    ) -> Encoded:
        """Raises an InvalidInput where there are uploads and none of them can be used."""
        gate = asyncio.Semaphore(CHUNKS_IN_FLIGHT)
        spec = self.bundle.manifest.image
        check = isinstance(options, FitOptions) and options.foreign == "flag"

        async def encode_chunk(chunk: Sequence[Upload]) -> Encoded:
            async with gate:
                return await self._encode_chunk(chunk, options.resize, check, keep_pixels)

        starts = range(0, len(uploads), CHUNK_ROWS)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(encode_chunk(uploads[at : at + CHUNK_ROWS])) for at in starts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        chunks = [task.result() for task in tasks]
        errors = {
            at + position: error
            for at, chunk in zip(starts, chunks, strict=True)
            for position, error in chunk.errors.items()
        }
        if uploads and len(errors) == len(uploads):
            first = errors[0]
            raise type(first)(
                f"None of the {len(uploads)} {what} can be used. The first, {uploads[0].id}: {first.message}",
                first.hint,
            )
        checks = [chunk.check for chunk in chunks if chunk.check is not None]
        nothing = np.empty((0, 2, self.bundle.manifest.latent_dim), dtype=np.float32)
        return Encoded(
            uploads,
            np.concatenate([nothing, *(chunk.latents for chunk in chunks)]),
            np.concatenate([np.empty((0, *spec.shape), np.uint8), *(chunk.pixels for chunk in chunks)]),
            foreign.Check.concatenate(checks) if checks else None,
            errors,
        )

    async def _encode_chunk(self, uploads: Sequence[Upload], resize: Resize, check: bool, keep_pixels: bool) -> Encoded:
        spec, familiarity = self.bundle.manifest.image, self.bundle.population.familiarity
        rows: Rows = await asyncio.to_thread(read_rows, uploads, spec, resize, self.settings.max_image_pixels)
        if not len(rows.pixels):
            nothing = np.empty((0, 2, self.bundle.manifest.latent_dim), dtype=np.float32)
            return Encoded(uploads, nothing, rows.pixels, None, rows.errors)
        latents = await self.networks.encode(rows.pixels)
        found: foreign.Check | None = None
        if check and familiarity is not None:
            decoded = await self.networks.decode(np.ascontiguousarray(latents[:, 0]))
            found = await asyncio.to_thread(foreign.check, rows.pixels, decoded, familiarity)
        return Encoded(uploads, latents, rows.pixels if keep_pixels else rows.pixels[:0], found, rows.errors)
