"""The one flow from uploads to answers, whatever the transport: HTTP, gRPC and offline call these functions.

uploads -> rows (uint8, each with its own error) -> latents -> context and scores -> attributions or edits -> answer
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ParamSpec, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service import answers, edits, explanation, fitting, foreign, gallery, scoring
from service.batch import Batch, Encoded
from service.bundle import Bundle
from service.context import Context, Estimator
from service.errors import InvalidInput
from service.explanation import Explanation
from service.gallery import Drawn, Gallery, Plan
from service.images import Resize, Rows, Upload, read_rows
from service.observer import Observer, Stage
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
from service.requests import ImagesRequest, no_images
from service.schemas import Description, EncodeResponse, FitResponse, Limits, ScoreResponse
from service.settings import Settings
from service.turns import Turns

Float32Array = NDArray[np.float32]
Uint8Array = NDArray[np.uint8]
Row = TypeVar("Row", bound=np.generic)
Result = TypeVar("Result", bound=np.generic)
Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")

# Rows decoded and encoded at a time: while one chunk is encoded the next is decoded and on its way.
CHUNK_ROWS = 128
# Chunks of one request under way at a time: a large request leaves room for the small ones.
CHUNKS_IN_FLIGHT = 4
# Rows of all requests at the networks at a time: enough that these never wait for more, few enough that a row which is
# let in is through in no time.
ROWS_AT_WORK = 1024
# Images in one piece of a stream's answer: well below the 4 MiB that a gRPC client takes by default.
STREAM_PIECE = 1000


class Networks(Protocol):
    """The networks, row by row; the transport says where they run."""

    async def encode(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to latents (n, 2, L)."""

    async def encode_checked(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to (n, 2L + 1): the same latents, and how far off the picture is that they give.

        Where that is all one asks of the picture, it need not travel (`service.foreign.reconstruction_error`).
        """

    async def decode(self, latents: Float32Array) -> Uint8Array:
        """Latents (n, L) to uint8 (n, H, W, C)."""

    async def saliency(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to signed heat maps (n, L, h, w) of where each latent's mean is read."""


@dataclass(frozen=True)
class Pipeline:
    bundle: Bundle
    networks: Networks
    settings: Settings
    observer: Observer = field(default_factory=Observer)

    def __post_init__(self) -> None:
        # The matrices are tiny: BLAS threads would wait for each other longer than they compute.
        threadpool_limits(limits=1, user_api="blas")

    async def score(self, request: ImagesRequest[ScoreOptions]) -> ScoreResponse:
        """Raises InvalidInput where no image, or no reference image, can be used."""
        batch = await self._batch(request)
        return await self._timed("serialise", answers.scored, batch, request.options, self.bundle)

    async def score_stream(self, chunks: AsyncIterable[ImagesRequest[ScoreOptions]]) -> AsyncIterator[ScoreResponse]:
        """As `score`, of one batch that comes in chunks and is answered in pieces, once the last chunk has come.

        The first chunk says how, and what to compare with. Of every chunk nothing is kept but latents and ids.
        Raises InvalidInput where nothing comes, and as `score` does.
        """
        parts, context, options = [self._nothing], None, ScoreOptions()
        async for chunk in chunks:
            if len(parts) == 1:
                context, options = await self._given_context(chunk), chunk.options
            parts.append(await self._encode_any(chunk.images, options))
        images = Encoded.concatenate(parts)
        del parts
        if not images.ids:
            raise no_images()
        self.observer.encoded(images)
        _refuse_if_none_is_usable(images, "images")
        batch = await self._scored(images, context, options)
        for piece in batch.pieces(STREAM_PIECE):
            yield await self._timed("serialise", answers.scored, piece, options, self.bundle)

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
            self._timed("explain", answers.explained, batch, mapped, options, self.bundle), self._maps(batch, mapped)
        )
        return await self._timed("explain", explanation.of, batch, explained, maps, self.bundle)

    async def _maps(self, batch: Batch, mapped: NDArray[np.intp]) -> Float32Array:
        """The heat maps (m, L, h, w) of the images in the rows `mapped` (m,), less the map of a typical image."""
        if len(mapped) == 0:
            return np.empty(0, dtype=np.float32)
        shown = np.concatenate([await self._typical(batch), batch.images.pixels[mapped]])
        with self.observer.stage("saliency"):
            maps = await self._rows(self.networks.saliency, shown)
        difference: Float32Array = maps[1:] - maps[0]
        return difference

    async def _typical(self, batch: Batch) -> Uint8Array:
        """What heat maps are compared with, (1, H, W, C): the batch's most typical image, or a context's middle."""
        if batch.context.source == "batch" and batch.typical is not None:
            return batch.images.pixels[batch.typical : batch.typical + 1]
        return await self._rows(self.networks.decode, batch.context.location[None].astype(np.float32))

    async def fit(self, request: ImagesRequest[FitOptions]) -> FitResponse:
        """The context of the request's images, merged with the contexts that it brings."""
        contexts = [from_portable(context, self.bundle) for context in request.contexts]
        images = await self._encode(request.images, request.options, "images")
        if request.images:
            contexts.append(await self._timed("statistics", self._fit, images, request.options))
        context = await self._timed("statistics", fitting.merge, contexts, self.bundle.population)
        return FitResponse(
            model=self.bundle.manifest.model,
            context=to_portable(context, self.bundle.manifest.bundle_id),
            errors=answers.errors_by_id(images),
        )

    async def edit(self, request: ImagesRequest[EditOptions]) -> Gallery:
        batch = await self._batch(request, keep_pixels=True)
        return await self._draw(await self._timed("edit", gallery.plan_edit, batch, request.options, self.bundle))

    async def traverse(self, request: ImagesRequest[TraverseOptions]) -> Gallery:
        batch = await self._batch(request)
        return await self._draw(await self._timed("edit", gallery.plan_traverse, batch, request.options, self.bundle))

    async def interpolate(self, request: ImagesRequest[InterpolateOptions]) -> Gallery:
        batch = await self._batch(request)
        plan = await self._timed("edit", gallery.plan_interpolate, batch, request.options, self.bundle)
        return await self._draw(plan)

    async def sample(self, request: ImagesRequest[SampleOptions]) -> Gallery:
        batch = await self._batch(request)
        return await self._draw(await self._timed("edit", gallery.plan_sample, batch, request.options, self.bundle))

    async def encode(self, request: ImagesRequest[EncodeOptions]) -> EncodeResponse:
        images = await self._encode(request.images, request.options, "images")
        return await self._timed("serialise", answers.encoded, images, self.bundle)

    async def decode(self, latents: NDArray[np.float64]) -> Gallery:
        """Latents (n, L), as `service.requests.check_latents` checked them."""
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
            default_estimator=manifest.default_estimator,
            provider=provider,
            limits=Limits(**self.settings.model_dump(include=set(Limits.model_fields))),
        )

    async def _batch(self, request: ImagesRequest[ScoringOptions], keep_pixels: bool = False) -> Batch:
        """The request's images, encoded and scored against their context."""
        context = await self._given_context(request)
        images = await self._encode(request.images, request.options, "images", keep_pixels)
        if not request.images:
            assert context is not None, "a request without images was refused unless it brought a context"
            return Batch(images, context, None)
        return await self._scored(images, context, request.options)

    async def _given_context(self, request: ImagesRequest[ScoringOptions]) -> Context | None:
        """What the request's images are to be compared with, where they are not their own context."""
        if request.contexts:
            contexts = [from_portable(given, self.bundle) for given in request.contexts]
            return fitting.merge(contexts, self.bundle.population)
        if request.reference is not None:
            reference = await self._encode(request.reference, request.options, "reference images")
            return await self._timed("statistics", self._fit, reference, request.options)
        return None

    async def _scored(self, images: Encoded, context: Context | None, options: ScoringOptions) -> Batch:
        """The images, of which there are some, compared with `context` or with each other."""
        scores = await self._timed(
            "statistics",
            scoring.score,
            images.latents,
            self.bundle.population,
            estimator=options.estimator or self.bundle.manifest.default_estimator,
            threshold=options.threshold,
            fdr=options.fdr,
            context=context,
            foreignness=None if images.check is None else images.check.foreignness,
        )
        warnings = (*scores.context.warnings, *self._unchecked(options))
        batch = Batch(images, replace(scores.context, warnings=warnings), scores)
        self.observer.scored(batch)
        return batch

    def _fit(self, images: Encoded, options: FitOptions) -> Context:
        """The context of images that were sent to be one."""
        native = images.native
        if len(native) == 0:
            raise InvalidInput(
                f"All {len(images.latents)} images are unlike anything that the model has seen.",
                "Serve a bundle that was trained on such images, or turn the check off with foreign=off.",
            )
        estimator = options.estimator or self.bundle.manifest.default_estimator
        context = fitting.fit(native, self.bundle.population, estimator=estimator)
        unused = answers.unused(images)
        return replace(context, warnings=(*context.warnings, unused)) if unused else context

    def _unchecked(self, options: FitOptions) -> tuple[str, ...]:
        if options.foreign == "off" or self.bundle.population.familiarity is not None:
            return ()
        return ("This bundle cannot tell images that are unlike anything the model has seen: export it again.",)

    async def _draw(self, plan: Plan) -> Gallery:
        """Decode what was planned, and look at it with the encoder's eyes; what missed its aim is drawn once more."""
        drawn = await self._drawn(plan.latents)
        rows = await self._timed("edit", gallery.missed, plan, drawn, self.bundle)
        if len(rows):
            assert plan.repaired is not None, "only counterfactuals have an aim"
            aim = edits.compensated(plan.latents[rows], drawn.reencoded[rows, 0], plan.repaired[rows])
            drawn = gallery.nearer(plan, drawn, rows, await self._drawn(aim), self.bundle)
        return await self._timed("edit", gallery.finish, plan, drawn, self.bundle)

    async def _drawn(self, latents: NDArray[np.float64]) -> Drawn:
        with self.observer.stage("draw"):
            images = await self._rows(self.networks.decode, latents.astype(np.float32))
        with self.observer.stage("encode"):
            return Drawn(latents, images, await self._rows(self.networks.encode, images))

    async def _timed(
        self,
        stage: Stage,
        work: Callable[Arguments, Found],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Found:
        """What `work` returns, done in a thread, as a part of `stage`."""
        with self.observer.stage(stage):
            return await asyncio.to_thread(work, *arguments, **options)

    async def _rows(
        self, network: Callable[[NDArray[Row]], Awaitable[NDArray[Result]]], rows: NDArray[Row]
    ) -> NDArray[Result]:
        """What `network` makes of rows (n, ...), n >= 1, chunk by chunk."""
        began, results = asyncio.get_running_loop().time(), []
        for at in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[at : at + CHUNK_ROWS]
            async with self._turns.turn(len(chunk), began, at):
                results.append(await network(chunk))
        return np.concatenate(results)

    @cached_property
    def _turns(self) -> Turns:
        # Half of its time after it began, the last row of the largest request is overtaken by none that comes.
        return Turns(ROWS_AT_WORK, self.settings.timeout_seconds / 2 / self.settings.max_images)

    async def _encode(
        self, uploads: Sequence[Upload], options: FitOptions | EncodeOptions, what: str, keep_pixels: bool = False
    ) -> Encoded:
        """Raises an InvalidInput where there are uploads and none of them can be used."""
        images = await self._encode_any(uploads, options, keep_pixels)
        self.observer.encoded(images)
        _refuse_if_none_is_usable(images, what)
        return images

    async def _encode_any(
        self, uploads: Sequence[Upload], options: FitOptions | EncodeOptions, keep_pixels: bool = False
    ) -> Encoded:
        gate = asyncio.Semaphore(CHUNKS_IN_FLIGHT)
        check = isinstance(options, FitOptions) and options.foreign == "flag"

        began = asyncio.get_running_loop().time()

        async def encode_chunk(at: int) -> Encoded:
            chunk = uploads[at : at + CHUNK_ROWS]
            async with gate, self._turns.turn(len(chunk), began, at):
                return await self._encode_chunk(chunk, options.resize, check, keep_pixels)

        starts = range(0, len(uploads), CHUNK_ROWS)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(encode_chunk(at)) for at in starts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return Encoded.concatenate([self._nothing, *(task.result() for task in tasks)])

    @property
    def _nothing(self) -> Encoded:
        """No images."""
        manifest = self.bundle.manifest
        latents = np.empty((0, 2, manifest.latent_dim), dtype=np.float32)
        return Encoded((), latents, np.empty((0, *manifest.image.shape), np.uint8), None, {})

    async def _encode_chunk(self, uploads: Sequence[Upload], resize: Resize, check: bool, keep_pixels: bool) -> Encoded:
        spec, familiarity = self.bundle.manifest.image, self.bundle.population.familiarity
        rows: Rows = await self._timed("decode", read_rows, uploads, spec, resize, self.settings.max_image_pixels)
        ids = [upload.id for upload in uploads]
        if not len(rows.pixels):
            return replace(self._nothing, ids=ids, errors=rows.errors)
        pixels = rows.pixels if keep_pixels else rows.pixels[:0]
        with self.observer.stage("encode"):
            if not check or familiarity is None:
                return Encoded(ids, await self.networks.encode(rows.pixels), pixels, None, rows.errors)
            found = await self.networks.encode_checked(rows.pixels)
        latents = found[:, :-1].reshape(len(found), 2, -1)
        return Encoded(ids, latents, pixels, foreign.check(found[:, -1], familiarity), rows.errors)


def _refuse_if_none_is_usable(images: Encoded, what: str) -> None:
    if images.ids and len(images.errors) == len(images.ids):
        first = images.errors[0]
        raise type(first)(
            f"None of the {len(images.ids)} {what} can be used. The first, {images.ids[0]}: {first.message}", first.hint
        )
