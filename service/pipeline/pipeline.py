"""The use cases, one method each, from uploads to answers. Every transport, and offline scoring, calls these methods.

uploads -> rows (uint8, each with its own error) -> latents -> context and scores -> attributions or edits -> answer
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from threadpoolctl import threadpool_limits

from service import short_work
from service.api.contexts import codec as context_codec
from service.api.contexts.codec import from_portable, to_portable
from service.api.image_names import warn_of_doubles
from service.api.options import (
    EditOptions,
    EncodeOptions,
    ExplainOptions,
    FitOptions,
    InterpolateOptions,
    SampleOptions,
    ScoreOptions,
    ScoreSheetOptions,
    ScoringOptions,
    TraverseOptions,
)
from service.api.requests import ImagesRequest, no_images
from service.api.schemas import Description, EncodeResponse, FitResponse, Limits, ScoreResponse
from service.bundle import quality
from service.bundle.manifest import ENCODER_INT8
from service.bundle.store import Bundle
from service.core.detect.estimators.registry import ESTIMATORS
from service.core.types import Float64Array, IndexArray
from service.decoding.pool import Decoder, LocalDecoder
from service.images.reading import Reading
from service.images.spec import Uint8Array
from service.inference.protocol import Networks
from service.pipeline import responses
from service.pipeline.batch import Batch, EncodedImages
from service.pipeline.batch_scorer import BatchScorer, refuse_if_none_is_usable
from service.pipeline.chunked_inference import ChunkedInference
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.edit import edit_plan
from service.pipeline.edit.drawing import Drawing
from service.pipeline.edit.edit_result import EditResult
from service.pipeline.explain import explanation, item_details, map_plan, score_sheet
from service.pipeline.explain.explanation import Explanation
from service.pipeline.explain.item_details import ExplanationWithoutMaps
from service.pipeline.explain.score_sheet import ScoreSheet
from service.pipeline.hooks import Hooks
from service.settings import Settings
from service.short_work import SHORT_IMAGES

IN_INT8 = "the encoder runs in int8 (MISFIT_PRECISION): contexts that were fitted in float32 are another bundle's"
# Images in one part of a stream's answer: well below the 4 MiB that a gRPC client takes by default.
STREAM_PIECE = 1000


@dataclass(frozen=True)
class Pipeline:
    """The use cases over one bundle.

    What blocks for long, statistics and the making of answers, runs in threads; `hooks` measure every stage.
    """

    bundle: Bundle
    networks: Networks
    settings: Settings
    hooks: Hooks = field(default_factory=Hooks)
    decoder: Decoder | None = None  # by default in this process

    def __post_init__(self) -> None:
        # The matrices are tiny: BLAS threads would wait for each other longer than they compute.
        threadpool_limits(limits=1, user_api="blas")

    async def score(self, request: ImagesRequest[ScoreOptions]) -> ChunkedResponse[ScoreResponse]:
        """Score every image of the request.

        Raises InvalidInput where no image, or no reference image, can be used.
        """
        batch = await self._scorer.score_request(request)
        with self.hooks.stage("serialise"):
            build = partial(responses.build_score_response, batch, request.options, self.bundle)
            is_short = len(request.images) <= SHORT_IMAGES and request.options.attributions == "none"
            return build() if is_short else await self._scorer.lane.run(len(request.images), build)

    async def score_sheet(self, request: ImagesRequest[ScoreSheetOptions]) -> ScoreSheet:
        """Score every image of the request, and show a page of them by rank.

        Raises InvalidOption where there is no such page, and what `score` raises.
        """
        # The sheet has reasons, whatever else is asked for.
        request = replace(request, options=request.options.model_copy(update={"attributions": "top"}))
        batch = await self._scorer.score_request(request, keep_pixels=True)
        rows = score_sheet.select_page(batch, request.options.page)
        pixels = await self._scorer.get_pixels(request, batch, rows)
        with self.hooks.stage("explain"):
            reasons = await asyncio.to_thread(item_details.find_reasons, batch, rows, self.bundle)
        return ScoreSheet(batch, rows, pixels, reasons, request.options.page)

    async def score_stream(self, chunks: AsyncIterable[ImagesRequest[ScoreOptions]]) -> AsyncIterator[ScoreResponse]:
        """Score one batch that comes in chunks; answer in parts, once the last chunk has come.

        The first chunk brings the options and the context. Of every chunk only latents and ids are kept.
        Raises InvalidInput where no chunk has images, and what `score` raises.
        """
        parts, context, options, reading = [self._inference.no_images], None, ScoreOptions(), Reading()
        async for chunk in chunks:
            if len(parts) == 1:
                context, options, reading = await self._scorer.find_context(chunk), chunk.options, chunk.reading
            reading.go_on(chunk.uploads)
            parts.append(await self._scorer.encode_uploads(chunk.images, options, chunk.budget, reading))
        images = EncodedImages.concatenate(parts)
        del parts
        if not images.ids:
            raise no_images()
        self.hooks.encoded(images)
        refuse_if_none_is_usable(images, "images")
        batch = await self._scorer.score_images(images, context, options, reading)
        for part in batch.split(STREAM_PIECE):
            with self.hooks.stage("serialise"):
                response = await asyncio.to_thread(self._build_part, part, options)
            yield response

    async def explain(self, request: ImagesRequest[ExplainOptions]) -> Explanation:
        """Score every image and say why: attributions of each, heat maps of those that the options name."""
        options, has_saliency = request.options, self.networks.capabilities.has_saliency
        max_mapped = explanation.limit_mapped_images(len(request.images), options, self.bundle)
        batch = await self._scorer.score_request(request, keep_pixels=has_saliency and options.heat_maps != "none")
        if options.heat_maps != "none" and not has_saliency:
            options = options.model_copy(update={"heat_maps": "none"})
            batch = batch.with_warnings("This bundle has no saliency.onnx, so there are no heat maps: export it again.")
        mapped = item_details.select_mapped_rows(batch, options, max_mapped)
        if options.heat_maps == "flagged" and (warning := explanation.warn_of_unmapped(batch, len(mapped))):
            batch = batch.with_warnings(warning)
        explaining = asyncio.create_task(self._explain_batch(batch, mapped, options))
        try:
            pixels, evidence = await self._find_evidence(request, batch, mapped, explaining)
            return Explanation(batch, await explaining, self.bundle, pixels, evidence)
        finally:
            explaining.cancel()

    async def _explain_batch(self, batch: Batch, mapped: IndexArray, options: ExplainOptions) -> ExplanationWithoutMaps:
        with self.hooks.stage("explain"):
            explain = partial(item_details.explain_without_maps, batch, mapped, options, self.bundle)
            return await self._scorer.lane.run(len(batch.images.ids), explain)

    async def _find_evidence(
        self,
        request: ImagesRequest[ExplainOptions],
        batch: Batch,
        mapped: IndexArray,
        explaining: asyncio.Task[ExplanationWithoutMaps],
    ) -> tuple[Uint8Array, Float64Array]:
        """Return the images (m, H, W, C) in the rows `mapped` (m,), and the evidence (m, t, h, w) of their maps.

        Of every image's maps only those that are shown are kept.
        """
        if len(mapped) == 0:
            return batch.images.pixels[:0], np.empty(0)
        pixels = await self._scorer.get_pixels(request, batch, mapped)
        images, typical_maps = pixels, None
        if self.bundle.projection is None:
            images = np.concatenate([await self._get_typical_image(request, batch), pixels])
        parts: list[Float64Array] = []
        start = 0
        async for maps in self._inference.saliency(images):
            if self.bundle.projection is not None:
                # The maps of a latent add up to it: in the middle of the context each place has the same share.
                typical_maps = batch.context.location[:, None, None] / np.prod(maps.shape[2:])
            elif typical_maps is None:
                typical_maps, maps = maps[0], maps[1:]
            explained, rows = await explaining, slice(start, start + len(maps))
            parts.append(map_plan.compute_evidence(maps - typical_maps, explained.maps.weights[rows]))
            start += len(maps)
        return pixels, np.concatenate(parts)

    async def _get_typical_image(self, request: ImagesRequest[ScoringOptions], batch: Batch) -> Uint8Array:
        """Return the image (1, H, W, C) that heat maps are compared with.

        It is the batch's most typical image where the batch is its own context, or the model cannot decode; else the
        decoded centre of the context.
        """
        can_decode = self.networks.capabilities.can_decode
        if batch.typical is not None and (batch.context.source == "batch" or not can_decode):
            return await self._scorer.get_pixels(request, batch, np.array([batch.typical]))
        return await self._inference.decode(batch.context.location[None].astype(np.float32))

    async def fit(self, request: ImagesRequest[FitOptions]) -> FitResponse:
        """Fit the context of the request's images, merged with the contexts that it brings."""
        contexts = [from_portable(context, self.bundle) for context in request.contexts]
        images = await self._scorer.encode_request(request.images, request, "images")
        if request.images:
            fitted = await self._scorer.fit(images, request.options)
            contexts.append(replace(fitted, warnings=(*fitted.warnings, *request.reading.list_warnings())))
        with self.hooks.stage("statistics"):
            context = await asyncio.to_thread(context_codec.merge, contexts, self.bundle.population)
        context = replace(context, warnings=(*context.warnings, *request.notes, *warn_of_doubles(images.ids)))
        return FitResponse(
            model=self.bundle.manifest.model,
            context=to_portable(context, self.bundle.manifest.bundle_id),
            errors=responses.errors_by_id(images),
        )

    async def edit(self, request: ImagesRequest[EditOptions]) -> EditResult:
        """Decode the images' latents as the options change them.

        Where the model cannot decode, this and the methods below show exemplars: see `service.pipeline.edit.exemplars`.
        """
        batch = await self._scorer.score_request(request, keep_pixels=True)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_edit, batch, request.options, self.bundle)
        if not plan.sources:
            return self._drawing.draw_nothing(plan)
        originals = await self._scorer.get_pixels(request, batch, np.searchsorted(batch.positions, plan.sources))
        return await self._drawing.draw_or_choose(replace(plan, originals=originals), request, batch)

    async def traverse(self, request: ImagesRequest[TraverseOptions]) -> EditResult:
        """Decode a grid of latents along one latent each, or along two."""
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._scorer.score_request(request)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_traverse, batch, request.options, self.bundle)
        return await self._drawing.draw_or_choose(plan, request, batch)

    async def interpolate(self, request: ImagesRequest[InterpolateOptions]) -> EditResult:
        """Decode the path between the latents of two images."""
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._scorer.score_request(request)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_interpolate, batch, request.options, self.bundle)
        return await self._drawing.draw_or_choose(plan, request, batch)

    async def sample(self, request: ImagesRequest[SampleOptions]) -> EditResult:
        """Decode latents drawn from the context."""
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._scorer.score_request(request)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_sample, batch, request.options, self.bundle)
        return await self._drawing.draw_or_choose(plan, request, batch)

    async def encode(self, request: ImagesRequest[EncodeOptions]) -> ChunkedResponse[EncodeResponse]:
        """Encode every image of the request."""
        images = await self._scorer.encode_request(request.images, request, "images")
        with self.hooks.stage("serialise"):
            warnings = [*request.reading.list_warnings(), *request.notes, *warn_of_doubles(images.ids)]
            is_short = len(images.ids) <= SHORT_IMAGES
            return await short_work.run(is_short, responses.build_encode_response, images, warnings, self.bundle)

    async def decode(self, latents: Float64Array) -> EditResult:
        """Decode latents (n, L), as `service.api.latents.check_latents` checked them."""
        self._drawing.require_decoder()
        edit_plan.check_count(len(latents), self.bundle)
        return await self._drawing.draw(edit_plan.plan_decode(latents))

    def describe(self, provider: str) -> Description:
        """Describe the model, its latents and the limits; `provider` is the networks' execution provider."""
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
            capabilities=manifest.capabilities,
            trained_on=manifest.trained_on,
            drawing=quality.describe_drawing(manifest),
            remarks=[
                *quality.remarks(manifest.metrics, manifest.latent_dim),
                *([IN_INT8] if self.bundle.encoder == ENCODER_INT8 else []),
            ],
        )

    def _build_part(self, part: Batch, options: ScoreOptions) -> ScoreResponse:
        return responses.build_score_response(part, options, self.bundle).whole()

    @cached_property
    def _inference(self) -> ChunkedInference:
        decoder = self.decoder or LocalDecoder(self.settings)
        return ChunkedInference(self.bundle, self.networks, decoder, self.settings, self.hooks)

    @cached_property
    def _scorer(self) -> BatchScorer:
        return BatchScorer(self.bundle, self._inference, self.hooks)

    @cached_property
    def _drawing(self) -> Drawing:
        return Drawing(self.bundle, self._inference, self._scorer, self.hooks)
