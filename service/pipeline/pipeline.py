"""The one flow from uploads to answers, whatever the transport: HTTP, gRPC and offline call these functions.

uploads -> rows (uint8, each with its own error) -> latents -> context and scores -> attributions or edits -> answer
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from service.api import context_codec
from service.api.context_codec import from_portable, to_portable
from service.api.options import (
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
from service.api.requests import ImagesRequest, no_images
from service.api.schemas import Description, EncodeResponse, FitResponse, Limits, ScoreResponse
from service.bundle.store import Bundle
from service.core.detect import fit, scoring
from service.core.detect.context import Context
from service.core.detect.estimators import ESTIMATORS
from service.core.edit import latent_edits
from service.core.types import Float64Array, IndexArray
from service.decoding.pool import Decoder, LocalDecoder
from service.errors import InvalidInput
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.spec import Uint8Array
from service.inference.protocol import Networks
from service.pipeline import edit_plan, edit_result, explanation, responses
from service.pipeline.batch import Batch, Encoded
from service.pipeline.chunked_inference import Coder
from service.pipeline.chunked_response import Pieced
from service.pipeline.edit_plan import Plan
from service.pipeline.edit_result import Gallery
from service.pipeline.explanation import Explanation
from service.pipeline.hooks import Observer
from service.pipeline.responses import Explained
from service.settings import Settings

# Images in one piece of a stream's answer: well below the 4 MiB that a gRPC client takes by default.
STREAM_PIECE = 1000
# Bytes of pixels that are kept until it is known which of the images are to be shown: of more, those are read again.
MOST_KEPT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Pipeline:
    bundle: Bundle
    networks: Networks
    settings: Settings
    observer: Observer = field(default_factory=Observer)
    decoder: Decoder | None = None  # by default in this process

    def __post_init__(self) -> None:
        # The matrices are tiny: BLAS threads would wait for each other longer than they compute.
        threadpool_limits(limits=1, user_api="blas")

    async def score(self, request: ImagesRequest[ScoreOptions]) -> Pieced[ScoreResponse]:
        """Raises InvalidInput where no image, or no reference image, can be used."""
        batch = await self._batch(request)
        return await self.observer.timed("serialise", responses.scored, batch, request.options, self.bundle)

    async def score_stream(self, chunks: AsyncIterable[ImagesRequest[ScoreOptions]]) -> AsyncIterator[ScoreResponse]:
        """As `score`, of one batch that comes in chunks and is answered in pieces, once the last chunk has come.

        The first chunk says how, and what to compare with. Of every chunk nothing is kept but latents and ids.
        Raises InvalidInput where nothing comes, and as `score` does.
        """
        parts, context, options = [self._coder.nothing], None, ScoreOptions()
        async for chunk in chunks:
            if len(parts) == 1:
                context, options = await self._given_context(chunk), chunk.options
            parts.append(await self._latents(chunk.images, options, chunk.budget))
        images = Encoded.concatenate(parts)
        del parts
        if not images.ids:
            raise no_images()
        self.observer.encoded(images)
        _refuse_if_none_is_usable(images, "images")
        batch = await self._scored(images, context, options)
        for piece in batch.pieces(STREAM_PIECE):
            yield await self.observer.timed("serialise", self._scored_piece, piece, options)

    async def explain(self, request: ImagesRequest[ExplainOptions]) -> Explanation:
        """As /score, with the reasons: attributions of every image and heat maps of those that the options name."""
        options, drawing = request.options, self.bundle.manifest.has_saliency
        most = explanation.most_mapped(len(request.images), options, self.bundle)
        batch = await self._batch(request, keep_pixels=drawing and options.heat_maps != "none")
        if options.heat_maps != "none" and not drawing:
            options = options.model_copy(update={"heat_maps": "none"})
            batch = batch.warned("This bundle has no saliency.onnx, so there are no heat maps: export it again.")
        mapped = responses.mapped(batch, options, most)
        if options.heat_maps == "flagged" and (left_out := explanation.left_out(batch, len(mapped))):
            batch = batch.warned(left_out)
        explaining = asyncio.create_task(
            self.observer.timed("explain", responses.explained, batch, mapped, options, self.bundle)
        )
        try:
            pixels, evidence = await self._evidence(request, batch, mapped, explaining)
            return Explanation(batch, await explaining, self.bundle, pixels, evidence)
        finally:
            explaining.cancel()

    async def _evidence(
        self,
        request: ImagesRequest[ExplainOptions],
        batch: Batch,
        mapped: IndexArray,
        explaining: asyncio.Task[Explained],
    ) -> tuple[Uint8Array, Float64Array]:
        """The images (m, H, W, C) in the rows `mapped` (m,), and the evidence (m, t, h, w) for their top latents.

        Of every image's maps no more than those of its top latents are kept.
        """
        if len(mapped) == 0:
            return batch.images.pixels[:0], np.empty(0)
        pixels, typical = await self._pixels(request, batch, mapped), await self._typical(request, batch)
        of_typical, parts, done = None, [], 0
        async for maps in self._coder.saliency(np.concatenate([typical, pixels])):
            if of_typical is None:
                of_typical, maps = maps[0], maps[1:]
            explained, rows = await explaining, slice(done, done + len(maps))
            parts.append(explanation.evidence(maps - of_typical, explained.top[rows], explained.signs[rows]))
            done += len(maps)
        return pixels, np.concatenate(parts)

    async def _pixels(self, request: ImagesRequest[ScoringOptions], batch: Batch, rows: IndexArray) -> Uint8Array:
        """The usable images (k, H, W, C) in the rows (k,), k >= 1: as they were kept, or read again."""
        if len(batch.images.pixels):
            return batch.images.pixels[rows]
        positions = batch.positions
        uploads = [request.images[positions[row]] for row in rows]
        return await self._coder.pixels(uploads, request.options.resize, request.budget.again())

    async def _typical(self, request: ImagesRequest[ScoringOptions], batch: Batch) -> Uint8Array:
        """What heat maps are compared with, (1, H, W, C): the batch's most typical image, or a context's middle."""
        if batch.context.source == "batch" and batch.typical is not None:
            return await self._pixels(request, batch, np.array([batch.typical]))
        return await self._coder.decode(batch.context.location[None].astype(np.float32))

    async def fit(self, request: ImagesRequest[FitOptions]) -> FitResponse:
        """The context of the request's images, merged with the contexts that it brings."""
        contexts = [from_portable(context, self.bundle) for context in request.contexts]
        images = await self._encode(request.images, request, "images")
        if request.images:
            contexts.append(await self.observer.timed("statistics", self._fit, images, request.options))
        context = await self.observer.timed("statistics", context_codec.merge, contexts, self.bundle.population)
        return FitResponse(
            model=self.bundle.manifest.model,
            context=to_portable(context, self.bundle.manifest.bundle_id),
            errors=responses.errors_by_id(images),
        )

    async def edit(self, request: ImagesRequest[EditOptions]) -> Gallery:
        batch = await self._batch(request, keep_pixels=True)
        plan = await self.observer.timed("edit", edit_plan.plan_edit, batch, request.options, self.bundle)
        originals = await self._pixels(request, batch, np.searchsorted(batch.positions, plan.sources))
        return await self._draw(replace(plan, originals=originals))

    async def traverse(self, request: ImagesRequest[TraverseOptions]) -> Gallery:
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._batch(request)
        return await self._draw(
            await self.observer.timed("edit", edit_plan.plan_traverse, batch, request.options, self.bundle)
        )

    async def interpolate(self, request: ImagesRequest[InterpolateOptions]) -> Gallery:
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._batch(request)
        plan = await self.observer.timed("edit", edit_plan.plan_interpolate, batch, request.options, self.bundle)
        return await self._draw(plan)

    async def sample(self, request: ImagesRequest[SampleOptions]) -> Gallery:
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._batch(request)
        return await self._draw(
            await self.observer.timed("edit", edit_plan.plan_sample, batch, request.options, self.bundle)
        )

    async def encode(self, request: ImagesRequest[EncodeOptions]) -> Pieced[EncodeResponse]:
        images = await self._encode(request.images, request, "images")
        return await self.observer.timed("serialise", responses.encoded, images, self.bundle)

    async def decode(self, latents: Float64Array) -> Gallery:
        """Latents (n, L), as `service.api.requests.check_latents` checked them."""
        edit_plan.check_count(len(latents), self.bundle)
        return await self._draw(edit_plan.plan_decode(latents))

    def describe(self, provider: str) -> Description:
        manifest = self.bundle.manifest
        return Description(
            bundle_id=manifest.bundle_id,
            model=manifest.model,
            image=manifest.image,
            latent_dim=manifest.latent_dim,
            latents=list(manifest.latents),
            metrics=dict(manifest.metrics),
            estimators=list(ESTIMATORS),
            default_estimator=manifest.default_estimator,
            provider=provider,
            limits=Limits(**self.settings.model_dump(include=set(Limits.model_fields))),
        )

    async def _batch(self, request: ImagesRequest[ScoringOptions], keep_pixels: bool = False) -> Batch:
        """The request's images, encoded and scored against their context."""
        context = await self._given_context(request)
        size = len(request.images) * int(np.prod(self.bundle.manifest.image.shape))
        kept = keep_pixels and size <= MOST_KEPT
        images = await self._encode(request.images, request, "images", kept)
        if not request.images:
            assert context is not None, "a request without images was refused unless it brought a context"
            return Batch(images, context, None)
        return await self._scored(images, context, request.options)

    def _scored_piece(self, piece: Batch, options: ScoreOptions) -> ScoreResponse:
        return responses.scored(piece, options, self.bundle).whole()

    async def _given_context(self, request: ImagesRequest[ScoringOptions]) -> Context | None:
        """What the request's images are to be compared with, where they are not their own context."""
        if request.contexts:
            contexts = [from_portable(given, self.bundle) for given in request.contexts]
            return context_codec.merge(contexts, self.bundle.population)
        if request.reference is not None:
            reference = await self._encode(request.reference, request, "reference images")
            return await self.observer.timed("statistics", self._fit, reference, request.options)
        return None

    async def _scored(self, images: Encoded, context: Context | None, options: ScoringOptions) -> Batch:
        """The images, of which there are some, compared with `context` or with each other."""
        scores = await self.observer.timed(
            "statistics",
            scoring.score,
            images.latents,
            self.bundle.population,
            estimator=options.estimator or self.bundle.manifest.default_estimator,
            threshold=options.threshold,
            fdr=options.fdr,
            context=context,
            ood_ratio=None if images.check is None else images.check.ood_ratio,
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
        context = fit.fit(native, self.bundle.population, estimator=estimator)
        unused = responses.unused(images)
        return replace(context, warnings=(*context.warnings, unused)) if unused else context

    def _unchecked(self, options: FitOptions) -> tuple[str, ...]:
        if options.foreign == "off" or self.bundle.population.familiarity is not None:
            return ()
        return ("This bundle cannot tell images that are unlike anything the model has seen: export it again.",)

    async def _draw(self, plan: Plan) -> Gallery:
        """Decode what was planned, and look at it with the encoder's eyes; what missed its aim is drawn once more."""
        drawn = await self._coder.draw(plan.latents)
        rows = await self.observer.timed("edit", edit_result.missed, plan, drawn, self.bundle)
        if len(rows):
            assert plan.repaired is not None, "only counterfactuals have an aim"
            aim = latent_edits.compensated(plan.latents[rows], drawn.reencoded[rows, 0], plan.repaired[rows])
            drawn = edit_result.nearer(plan, drawn, rows, await self._coder.draw(aim), self.bundle)
        return await self.observer.timed("edit", edit_result.finish, plan, drawn, self.bundle)

    async def _encode(
        self,
        uploads: Sequence[Upload],
        request: ImagesRequest[FitOptions | EncodeOptions],
        what: str,
        keep_pixels: bool = False,
    ) -> Encoded:
        """Raises an InvalidInput where there are uploads and none of them can be used."""
        images = await self._latents(uploads, request.options, request.budget, keep_pixels)
        self.observer.encoded(images)
        _refuse_if_none_is_usable(images, what)
        return images

    async def _latents(
        self,
        uploads: Sequence[Upload],
        options: FitOptions | EncodeOptions,
        budget: DecodeBudget,
        keep_pixels: bool = False,
    ) -> Encoded:
        check = isinstance(options, FitOptions) and options.foreign == "flag"
        return await self._coder.encode(uploads, options.resize, budget, check=check, keep_pixels=keep_pixels)

    @cached_property
    def _coder(self) -> Coder:
        decoder = self.decoder or LocalDecoder(self.settings)
        return Coder(self.bundle, self.networks, decoder, self.settings, self.observer)


def _refuse_if_none_is_usable(images: Encoded, what: str) -> None:
    if images.ids and len(images.errors) == len(images.ids):
        first = images.errors[0]
        raise type(first)(
            f"None of the {len(images.ids)} {what} can be used. The first, {images.ids[0]}: {first.message}", first.hint
        )
