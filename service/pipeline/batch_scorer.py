"""A request's images to a scored batch: encoded, compared with their context, with their pixels where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from service.api.contexts import codec as context_codec
from service.api.contexts.codec import from_portable
from service.api.image_names import warn_of_doubles
from service.api.options import ComparingOptions, EncodeOptions, FitOptions, ScoringOptions
from service.api.requests import ImagesRequest
from service.bundle.store import Bundle
from service.core.detect import fit, scoring
from service.core.detect.context import Context
from service.core.detect.gaussian_odds import noise_floor
from service.core.detect.standardize import PopulationUnits
from service.core.explain.nearest import find_duplicates, find_nearest
from service.core.explain.reasons import NEAREST_NAMED
from service.core.latent import CONTENT
from service.core.types import IndexArray
from service.errors import InvalidInput
from service.images.arrays import check_axes
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.properties import FILE_PROPERTIES
from service.images.reading import Reading
from service.images.spec import Uint8Array
from service.pipeline import responses
from service.pipeline.batch import Batch, EncodedImages, NearestImages
from service.pipeline.chunked_inference import CHUNK_ROWS, ChunkedInference
from service.pipeline.familiarity import LEARN, judge_in_context, needs_all_errors, warn_if_unusual, warn_of_whole
from service.pipeline.hooks import Hooks
from service.short_work import SHORT_IMAGES, Lane

FILE_FACTORS = frozenset(each.name for each in FILE_PROPERTIES)
# Bytes of pixels that are kept until it is known which images are to be shown; of more bytes, those are decoded again.
MOST_KEPT = 16 * 1024 * 1024
# Of fewer images no estimator fits a context.
FEWEST_FITTED = 3


@dataclass(frozen=True)
class BatchScorer:
    """What most use cases begin with, over one bundle. What blocks for long runs in threads."""

    bundle: Bundle
    inference: ChunkedInference
    hooks: Hooks

    async def score_request(self, request: ImagesRequest[ScoringOptions], keep_pixels: bool = False) -> Batch:
        """Encode the request's images and score them against their context."""
        context = await self.find_context(request)
        pixel_bytes = len(request.images) * int(np.prod(self.bundle.manifest.image.shape))
        keep_pixels = keep_pixels and pixel_bytes <= MOST_KEPT
        # One chunk of pixels is kept for `_complete_check`: while it was read there were more.
        screened = self.bundle.manifest.screen is not None
        keep = keep_pixels or (screened and len(request.images) <= CHUNK_ROWS)
        images = await self.encode_request(request.images, request, "images", keep, screen=True)
        if needs_all_errors(images.check, context):
            images = await self._complete_check(images, request)
        if not keep_pixels:
            images = replace(images, pixels=self.inference.no_images.pixels)
        if not request.images:
            assert context is not None, "a request without images was refused unless it brought a context"
            return Batch(images, context, None)
        batch = await self.score_images(images, context, request.options, request.reading)
        return batch.with_warnings(*request.notes)

    async def score_images(
        self, images: EncodedImages, context: Context | None, options: ScoringOptions, reading: Reading
    ) -> Batch:
        """Score images, at least one of them usable, against `context` or against each other."""
        count = len(images.latents)
        score = partial(self._score_images, images, context, options, reading)
        # Only the fit of a context takes long.
        is_short = count < FEWEST_FITTED if context is None else count <= SHORT_IMAGES
        with self.hooks.stage("statistics"):
            batch = score() if is_short else await self.lane.run(count, score)
        self.hooks.scored(batch)
        return batch

    @cached_property
    def lane(self) -> Lane:
        """Return where the statistics of small requests run."""
        return Lane()

    async def find_context(self, request: ImagesRequest[ScoringOptions]) -> Context | None:
        """Return the context that the request brings, or None where its images are their own context."""
        if request.contexts:
            contexts = [from_portable(context, self.bundle) for context in request.contexts]
            return context_codec.merge(contexts, self.bundle.population)
        if request.reference is not None:
            reference = await self.encode_request(request.reference, request, "reference images")
            return await self.fit(reference, request.options)
        return None

    async def fit(self, images: EncodedImages, options: FitOptions) -> Context:
        """Fit the context of images that were sent to be one. Raise InvalidInput where all are foreign."""
        with self.hooks.stage("statistics"):
            return await self.lane.run(len(images.latents), self._fit, images, options)

    async def encode_request(
        self,
        uploads: Sequence[Upload],
        request: ImagesRequest[FitOptions | EncodeOptions],
        what: str,
        keep_pixels: bool = False,
        screen: bool = False,
    ) -> EncodedImages:
        """Encode some uploads of a request. Raise an InvalidInput where there are some and none can be used."""
        for shape in request.shapes:
            check_axes(shape, self.bundle.manifest.image)
        images = await self.encode_uploads(
            uploads, request.options, request.budget, request.reading, keep_pixels, screen
        )
        self.hooks.encoded(images)
        refuse_if_none_is_usable(images, what)
        return images

    async def encode_uploads(
        self,
        uploads: Sequence[Upload],
        options: FitOptions | EncodeOptions,
        budget: DecodeBudget,
        reading: Reading,
        keep_pixels: bool = False,
        screen: bool = False,
    ) -> EncodedImages:
        """Encode some uploads with the options of their request, as `ChunkedInference.encode` does."""
        check = isinstance(options, FitOptions) and options.foreign == "flag"
        return await self.inference.encode(
            uploads, options.resize, budget, reading, check=check, screen=screen, keep_pixels=keep_pixels
        )

    async def get_pixels(self, request: ImagesRequest[ScoringOptions], batch: Batch, rows: IndexArray) -> Uint8Array:
        """Return the usable images (k, H, W, C) in the rows (k,), k >= 1: as they were kept, or decoded again."""
        return await self._get_pixels(request, batch.images, rows)

    async def _get_pixels(
        self, request: ImagesRequest[ScoringOptions], images: EncodedImages, rows: IndexArray
    ) -> Uint8Array:
        if len(images.pixels):
            return images.pixels[rows]
        positions = images.positions
        uploads = [request.images[positions[row]] for row in rows]
        budget = request.budget.again()
        return await self.inference.read_pixels(uploads, request.options.resize, budget, request.reading)

    async def _complete_check(self, images: EncodedImages, request: ImagesRequest[ScoringOptions]) -> EncodedImages:
        """Return the images with the errors that their screen left out."""
        assert images.check is not None, "only a check is completed"
        error_ratio, times_median = images.check.error_ratio.copy(), images.check.times_median.copy()
        missing = np.flatnonzero(np.isnan(error_ratio))
        for start in range(0, len(missing), CHUNK_ROWS):
            rows = missing[start : start + CHUNK_ROWS]
            pixels = await self._get_pixels(request, images, rows)
            check = await self.inference.measure_error(pixels, images.latents[rows])
            error_ratio[rows], times_median[rows] = check.error_ratio, check.times_median
        return replace(images, check=replace(images.check, error_ratio=error_ratio, times_median=times_median))

    def _score_images(
        self, images: EncodedImages, context: Context | None, options: ScoringOptions, reading: Reading
    ) -> Batch:
        error = None if images.check is None else images.check.error_ratio
        images, manifest = judge_in_context(images, self.bundle, context), self.bundle.manifest
        scores = scoring.score(
            images.latents,
            self.bundle.population,
            estimator=options.estimator or manifest.default_estimator,
            threshold=options.threshold,
            fdr=options.fdr,
            context=context,
            ood_ratio=None if images.check is None else images.check.ood_ratio,
            error=error,
        )
        warnings = (
            *scores.context.warnings,
            *self._warn_if_unchecked(options),
            *reading.list_warnings(),
            *warn_of_doubles(images.ids),
        )
        positions = np.array(images.positions, dtype=np.intp)
        groups = tuple(replace(group, members=positions[group.members]) for group in scores.groups)
        fitted = replace(scores.context, warnings=warnings)
        fitted = warn_of_whole(fitted, images.check, manifest, is_own=context is None)
        batch = Batch(images, fitted, scores, groups)
        return self._compare_images(batch, options) if isinstance(options, ComparingOptions) else batch

    def _compare_images(self, batch: Batch, options: ComparingOptions) -> Batch:
        """Return the batch with the nearest images and the duplicates that `options`, or its reasons, ask for."""
        units = PopulationUnits.of(self.bundle.population)
        factors = [self.bundle.manifest.latents[index].factor for index in units.live]
        named = NEAREST_NAMED if options.has_reasons and batch.context.source == "batch" and CONTENT in factors else 0
        if not options.nearest and not named and options.duplicates == "off":
            return batch
        # The same picture in a larger file is still the same picture.
        axes = np.array([factor not in FILE_FACTORS for factor in factors], dtype=bool)
        points = units.points(batch.images.latents)[:, axes]
        positions = np.array(batch.images.positions, dtype=np.intp)
        if count := max(options.nearest, named):
            rows = np.arange(len(points)) if options.nearest else np.flatnonzero(batch.stands_out)
            neighbours, found = find_nearest(points, count, rows)
            shape = len(points), found.shape[1]
            nearest, distances = np.zeros(shape, dtype=np.intp), np.zeros(shape)
            nearest[rows], distances[rows] = positions[neighbours], found
            batch = replace(batch, nearest=NearestImages(batch.images.ids, nearest, distances, options.nearest))
        if options.duplicates == "groups":
            sets = find_duplicates(points, noise_floor(batch.context.posterior_variance, units)[axes])
            batch = replace(batch, duplicates=tuple(positions[members] for members in sets))
        return batch

    def _fit(self, images: EncodedImages, options: FitOptions) -> Context:
        images, manifest = judge_in_context(images, self.bundle, None), self.bundle.manifest
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
        if options.foreign == "off" or self.inference.can_check:
            return ()
        reason = "export it again." if self.inference.networks.capabilities.can_decode else "it has no decoder.onnx."
        return (f"This bundle cannot tell images that are unlike anything the model has seen: {reason}",)


def refuse_if_none_is_usable(images: EncodedImages, what: str) -> None:
    """Raise the first image's error where there are images and none can be used; `what` names them."""
    if images.ids and len(images.errors) == len(images.ids):
        first = images.errors[0]
        raise type(first)(
            f"None of the {len(images.ids)} {what} can be used. The first, {images.ids[0]}: {first.message}", first.hint
        )
