"""The use cases, one method each, from uploads to answers. Every transport, and offline scoring, calls these methods.

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
    ComparingOptions,
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
from service.bundle import quality
from service.bundle.store import Bundle
from service.core.detect import fit, scoring
from service.core.detect.context import Context
from service.core.detect.estimators import ESTIMATORS
from service.core.detect.gaussian_odds import noise_floor
from service.core.detect.standardize import PopulationUnits
from service.core.edit import latent_edits
from service.core.explain.nearest import find_duplicates, find_nearest
from service.core.types import Float64Array, IndexArray
from service.decoding.pool import Decoder, LocalDecoder
from service.errors import InvalidInput
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.spec import Uint8Array
from service.inference.protocol import Networks
from service.pipeline import edit_plan, edit_result, exemplars, explanation, responses
from service.pipeline.batch import Batch, DecodedImages, EncodedImages, NearestImages
from service.pipeline.chunked_inference import ChunkedInference
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.edit_plan import EditPlan
from service.pipeline.edit_result import EditResult
from service.pipeline.explanation import Explanation
from service.pipeline.familiarity import LEARN, judge_in_context, warn_if_unusual, warn_of_whole
from service.pipeline.hooks import Hooks
from service.pipeline.responses import ExplanationWithoutMaps
from service.settings import Settings

# Images in one part of a stream's answer: well below the 4 MiB that a gRPC client takes by default.
STREAM_PIECE = 1000
# Bytes of pixels that are kept until it is known which images are to be shown; of more bytes, those are decoded again.
MOST_KEPT = 16 * 1024 * 1024


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
        batch = await self._score_request(request)
        with self.hooks.stage("serialise"):
            return await asyncio.to_thread(responses.build_score_response, batch, request.options, self.bundle)

    async def score_stream(self, chunks: AsyncIterable[ImagesRequest[ScoreOptions]]) -> AsyncIterator[ScoreResponse]:
        """Score one batch that comes in chunks; answer in parts, once the last chunk has come.

        The first chunk brings the options and the context. Of every chunk only latents and ids are kept.
        Raises InvalidInput where no chunk has images, and what `score` raises.
        """
        parts, context, options = [self._inference.no_images], None, ScoreOptions()
        async for chunk in chunks:
            if len(parts) == 1:
                context, options = await self._find_context(chunk), chunk.options
            parts.append(await self._encode_uploads(chunk.images, options, chunk.budget))
        images = EncodedImages.concatenate(parts)
        del parts
        if not images.ids:
            raise no_images()
        self.hooks.encoded(images)
        _refuse_if_none_is_usable(images, "images")
        batch = await self._score_images(images, context, options)
        for part in batch.split(STREAM_PIECE):
            with self.hooks.stage("serialise"):
                response = await asyncio.to_thread(self._build_part, part, options)
            yield response

    async def explain(self, request: ImagesRequest[ExplainOptions]) -> Explanation:
        """Score every image and say why: attributions of each, heat maps of those that the options name."""
        options, has_saliency = request.options, self.networks.capabilities.has_saliency
        max_mapped = explanation.limit_mapped_images(len(request.images), options, self.bundle)
        batch = await self._score_request(request, keep_pixels=has_saliency and options.heat_maps != "none")
        if options.heat_maps != "none" and not has_saliency:
            options = options.model_copy(update={"heat_maps": "none"})
            batch = batch.with_warning("This bundle has no saliency.onnx, so there are no heat maps: export it again.")
        mapped = responses.select_mapped_rows(batch, options, max_mapped)
        if options.heat_maps == "flagged" and (warning := explanation.warn_of_unmapped(batch, len(mapped))):
            batch = batch.with_warning(warning)
        explaining = asyncio.create_task(self._explain_batch(batch, mapped, options))
        try:
            pixels, evidence = await self._find_evidence(request, batch, mapped, explaining)
            return Explanation(batch, await explaining, self.bundle, pixels, evidence)
        finally:
            explaining.cancel()

    async def _explain_batch(self, batch: Batch, mapped: IndexArray, options: ExplainOptions) -> ExplanationWithoutMaps:
        with self.hooks.stage("explain"):
            return await asyncio.to_thread(responses.explain_without_maps, batch, mapped, options, self.bundle)

    async def _find_evidence(
        self,
        request: ImagesRequest[ExplainOptions],
        batch: Batch,
        mapped: IndexArray,
        explaining: asyncio.Task[ExplanationWithoutMaps],
    ) -> tuple[Uint8Array, Float64Array]:
        """Return the images (m, H, W, C) in the rows `mapped` (m,), and the evidence (m, t, h, w) of their top latents.

        Of every image's maps only those of its top latents are kept.
        """
        if len(mapped) == 0:
            return batch.images.pixels[:0], np.empty(0)
        pixels, typical = await self._get_pixels(request, batch, mapped), await self._get_typical_image(request, batch)
        typical_maps, parts, start = None, [], 0
        async for maps in self._inference.saliency(np.concatenate([typical, pixels])):
            if typical_maps is None:
                typical_maps, maps = maps[0], maps[1:]
            explained, rows = await explaining, slice(start, start + len(maps))
            parts.append(explanation.compute_evidence(maps - typical_maps, explained.top[rows], explained.signs[rows]))
            start += len(maps)
        return pixels, np.concatenate(parts)

    async def _get_pixels(self, request: ImagesRequest[ScoringOptions], batch: Batch, rows: IndexArray) -> Uint8Array:
        """Return the usable images (k, H, W, C) in the rows (k,), k >= 1: as they were kept, or decoded again."""
        if len(batch.images.pixels):
            return batch.images.pixels[rows]
        positions = batch.positions
        uploads = [request.images[positions[row]] for row in rows]
        return await self._inference.read_pixels(uploads, request.options.resize, request.budget.again())

    async def _get_typical_image(self, request: ImagesRequest[ScoringOptions], batch: Batch) -> Uint8Array:
        """Return the image (1, H, W, C) that heat maps are compared with.

        It is the batch's most typical image where the batch is its own context, or the model cannot decode; else the
        decoded centre of the context.
        """
        can_decode = self.networks.capabilities.can_decode
        if batch.typical is not None and (batch.context.source == "batch" or not can_decode):
            return await self._get_pixels(request, batch, np.array([batch.typical]))
        return await self._inference.decode(batch.context.location[None].astype(np.float32))

    async def fit(self, request: ImagesRequest[FitOptions]) -> FitResponse:
        """Fit the context of the request's images, merged with the contexts that it brings."""
        contexts = [from_portable(context, self.bundle) for context in request.contexts]
        images = await self._encode_request(request.images, request, "images")
        if request.images:
            contexts.append(await self._fit_in_thread(images, request.options))
        with self.hooks.stage("statistics"):
            context = await asyncio.to_thread(context_codec.merge, contexts, self.bundle.population)
        return FitResponse(
            model=self.bundle.manifest.model,
            context=to_portable(context, self.bundle.manifest.bundle_id),
            errors=responses.errors_by_id(images),
        )

    async def edit(self, request: ImagesRequest[EditOptions]) -> EditResult:
        """Decode the images' latents as the options change them.

        Where the model cannot decode, this and the methods below show exemplars: see `service.pipeline.exemplars`.
        """
        batch = await self._score_request(request, keep_pixels=True)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_edit, batch, request.options, self.bundle)
        originals = await self._get_pixels(request, batch, np.searchsorted(batch.positions, plan.sources))
        return await self._carry_out(replace(plan, originals=originals), request, batch)

    async def traverse(self, request: ImagesRequest[TraverseOptions]) -> EditResult:
        """Decode a grid of latents along one latent each, or along two."""
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._score_request(request)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_traverse, batch, request.options, self.bundle)
        return await self._carry_out(plan, request, batch)

    async def interpolate(self, request: ImagesRequest[InterpolateOptions]) -> EditResult:
        """Decode the path between the latents of two images."""
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._score_request(request)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_interpolate, batch, request.options, self.bundle)
        return await self._carry_out(plan, request, batch)

    async def sample(self, request: ImagesRequest[SampleOptions]) -> EditResult:
        """Decode latents drawn from the context."""
        edit_plan.check_count(request.options.pictures, self.bundle)
        batch = await self._score_request(request)
        with self.hooks.stage("edit"):
            plan = await asyncio.to_thread(edit_plan.plan_sample, batch, request.options, self.bundle)
        return await self._carry_out(plan, request, batch)

    async def encode(self, request: ImagesRequest[EncodeOptions]) -> ChunkedResponse[EncodeResponse]:
        """Encode every image of the request."""
        images = await self._encode_request(request.images, request, "images")
        with self.hooks.stage("serialise"):
            return await asyncio.to_thread(responses.build_encode_response, images, self.bundle)

    async def decode(self, latents: Float64Array) -> EditResult:
        """Decode latents (n, L), as `service.api.requests.check_latents` checked them."""
        self._require_decoder()
        edit_plan.check_count(len(latents), self.bundle)
        return await self._draw(edit_plan.plan_decode(latents))

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
            remarks=quality.remarks(manifest.metrics, manifest.latent_dim),
        )

    async def _score_request(self, request: ImagesRequest[ScoringOptions], keep_pixels: bool = False) -> Batch:
        """Encode the request's images and score them against their context."""
        context = await self._find_context(request)
        pixel_bytes = len(request.images) * int(np.prod(self.bundle.manifest.image.shape))
        keep_pixels = keep_pixels and pixel_bytes <= MOST_KEPT
        images = await self._encode_request(request.images, request, "images", keep_pixels)
        if not request.images:
            assert context is not None, "a request without images was refused unless it brought a context"
            return Batch(images, context, None)
        return await self._score_images(images, context, request.options)

    def _build_part(self, part: Batch, options: ScoreOptions) -> ScoreResponse:
        return responses.build_score_response(part, options, self.bundle).whole()

    async def _find_context(self, request: ImagesRequest[ScoringOptions]) -> Context | None:
        """Return the context that the request brings, or None where its images are their own context."""
        if request.contexts:
            contexts = [from_portable(context, self.bundle) for context in request.contexts]
            return context_codec.merge(contexts, self.bundle.population)
        if request.reference is not None:
            reference = await self._encode_request(request.reference, request, "reference images")
            return await self._fit_in_thread(reference, request.options)
        return None

    async def _score_images(self, images: EncodedImages, context: Context | None, options: ScoringOptions) -> Batch:
        """Score images, at least one of them usable, against `context` or against each other."""
        images = judge_in_context(images, self.bundle.population.familiarity, context)
        with self.hooks.stage("statistics"):
            scores = await asyncio.to_thread(
                scoring.score,
                images.latents,
                self.bundle.population,
                estimator=options.estimator or self.bundle.manifest.default_estimator,
                threshold=options.threshold,
                fdr=options.fdr,
                context=context,
                ood_ratio=None if images.check is None else images.check.ood_ratio,
            )
            positions = np.array(images.positions, dtype=np.intp)
            groups = tuple(replace(group, members=positions[group.members]) for group in scores.groups)
            fitted = replace(scores.context, warnings=(*scores.context.warnings, *self._warn_if_unchecked(options)))
            fitted = warn_of_whole(fitted, images.check, self.bundle.manifest, is_own=context is None)
            batch = Batch(images, fitted, scores, groups)
            if isinstance(options, ComparingOptions):
                batch = await asyncio.to_thread(self._compare_images, batch, options)
        self.hooks.scored(batch)
        return batch

    def _compare_images(self, batch: Batch, options: ComparingOptions) -> Batch:
        """Return the batch with the nearest images and the duplicates that `options` ask for."""
        if not options.nearest and options.duplicates == "off":
            return batch
        units = PopulationUnits.of(self.bundle.population)
        points, positions = units.points(batch.images.latents), np.array(batch.images.positions, dtype=np.intp)
        if options.nearest:
            rows, distances = find_nearest(points, options.nearest)
            batch = replace(batch, nearest=NearestImages(batch.images.ids, positions[rows], distances))
        if options.duplicates == "groups":
            sets = find_duplicates(points, noise_floor(batch.context.posterior_variance, units))
            batch = replace(batch, duplicates=tuple(positions[members] for members in sets))
        return batch

    async def _fit_in_thread(self, images: EncodedImages, options: FitOptions) -> Context:
        with self.hooks.stage("statistics"):
            return await asyncio.to_thread(self._fit, images, options)

    def _fit(self, images: EncodedImages, options: FitOptions) -> Context:
        """Fit the context of images that were sent to be one."""
        images, manifest = judge_in_context(images, self.bundle.population.familiarity, None), self.bundle.manifest
        native = images.native
        if len(native) == 0:
            raise InvalidInput(
                f"All {len(images.latents)} images are unlike anything that the model has seen: it knows "
                f"{manifest.trained_on}.",
                f"{LEARN}, serve a bundle that was trained on such images, or turn the check off with foreign=off.",
            )
        estimator = options.estimator or manifest.default_estimator
        context = fit.fit(native, self.bundle.population, estimator=estimator)
        if images.check is not None:
            context = replace(context, ood_limit=images.check.limit)
            context = warn_if_unusual(context, images.check, manifest)
        warning = responses.warn_of_unused(images)
        return replace(context, warnings=(*context.warnings, warning)) if warning else context

    def _warn_if_unchecked(self, options: FitOptions) -> tuple[str, ...]:
        if options.foreign == "off" or self._inference.can_check:
            return ()
        reason = "export it again." if self.networks.capabilities.can_decode else "it has no decoder.onnx."
        return (f"This bundle cannot tell images that are unlike anything the model has seen: {reason}",)

    def _require_decoder(self) -> None:
        if not self.networks.capabilities.can_decode:
            raise InvalidInput(
                f"The model {self.bundle.manifest.model} has no decoder, so it can draw no pictures.",
                "Ask for /edit, /traverse or /sample with images, which show the nearest of them, or serve a bundle "
                "with decoder.onnx.",
            )

    async def _carry_out(self, plan: EditPlan, request: ImagesRequest[ScoringOptions], batch: Batch) -> EditResult:
        """Draw what was planned, or find the images of the batch that are nearest to it."""
        if self.networks.capabilities.can_decode:
            return await self._draw(plan)
        with self.hooks.stage("edit"):
            rows = await asyncio.to_thread(exemplars.choose, plan, batch, self.bundle)
        pixels = await self._get_pixels(request, batch, rows)
        shown = DecodedImages(plan.latents, pixels, batch.images.latents[rows])
        with self.hooks.stage("edit"):
            plan = exemplars.named(plan, rows, batch)
            return await asyncio.to_thread(edit_result.build_result, plan, shown, self.bundle)

    async def _draw(self, plan: EditPlan) -> EditResult:
        """Decode what was planned and encode it again; counterfactuals that do not fit are decoded once more."""
        decoded = await self._inference.decode_and_reencode(plan.latents)
        with self.hooks.stage("edit"):
            rows = await asyncio.to_thread(edit_result.find_missed, plan, decoded, self.bundle)
        if len(rows):
            assert plan.repaired is not None, "only counterfactuals have a target"
            target = latent_edits.compensated(plan.latents[rows], decoded.reencoded[rows, 0], plan.repaired[rows])
            second = await self._inference.decode_and_reencode(target)
            decoded = edit_result.keep_nearer(plan, decoded, rows, second, self.bundle)
        with self.hooks.stage("edit"):
            return await asyncio.to_thread(edit_result.build_result, plan, decoded, self.bundle)

    async def _encode_request(
        self,
        uploads: Sequence[Upload],
        request: ImagesRequest[FitOptions | EncodeOptions],
        what: str,
        keep_pixels: bool = False,
    ) -> EncodedImages:
        """Encode some uploads of a request. Raise an InvalidInput where there are some and none can be used."""
        images = await self._encode_uploads(uploads, request.options, request.budget, keep_pixels)
        self.hooks.encoded(images)
        _refuse_if_none_is_usable(images, what)
        return images

    async def _encode_uploads(
        self,
        uploads: Sequence[Upload],
        options: FitOptions | EncodeOptions,
        budget: DecodeBudget,
        keep_pixels: bool = False,
    ) -> EncodedImages:
        check = isinstance(options, FitOptions) and options.foreign == "flag"
        return await self._inference.encode(uploads, options.resize, budget, check=check, keep_pixels=keep_pixels)

    @cached_property
    def _inference(self) -> ChunkedInference:
        decoder = self.decoder or LocalDecoder(self.settings)
        return ChunkedInference(self.bundle, self.networks, decoder, self.settings, self.hooks)


def _refuse_if_none_is_usable(images: EncodedImages, what: str) -> None:
    if images.ids and len(images.errors) == len(images.ids):
        first = images.errors[0]
        raise type(first)(
            f"None of the {len(images.ids)} {what} can be used. The first, {images.ids[0]}: {first.message}", first.hint
        )
