"""The one flow from uploads to scores, whatever the transport: HTTP, gRPC and offline call these functions.

uploads -> rows (uint8, each with its own error) -> latents -> context and scores -> response
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service import scoring
from service.bundle import Bundle
from service.context import Estimator
from service.errors import MisfitError
from service.images import Resize, Rows, Upload, read_rows
from service.requests import ScoreRequest
from service.schemas import Description, ErrorDetail, Limits, ScoredContext, ScoredItem, ScoreResponse
from service.settings import Settings

Float32Array = NDArray[np.float32]
Encode = Callable[[NDArray[np.uint8]], Awaitable[Float32Array]]

# Rows decoded and encoded at a time: while one chunk is encoded the next is decoded and on its way.
CHUNK_ROWS = 128
# Chunks of one request under way at a time: a large request leaves room for the small ones.
CHUNKS_IN_FLIGHT = 4


@dataclass(frozen=True)
class Encoded:
    """`latents` (k, 2, L) of the uploads that could be used; the others' errors by position."""

    latents: Float32Array
    errors: dict[int, MisfitError]


@dataclass(frozen=True)
class Pipeline:
    """`encode` maps uint8 (n, H, W, C) to float32 (n, 2, L); the transport says where that happens."""

    bundle: Bundle
    encode: Encode
    settings: Settings

    def __post_init__(self) -> None:
        # The matrices are tiny: BLAS threads would wait for each other longer than they compute.
        threadpool_limits(limits=1, user_api="blas")

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """Raises InvalidInput where no image, or no reference image, can be used."""
        images = await self._encode_uploads(request.images, request.options.resize, "images")
        reference = (
            await self._encode_uploads(request.reference, request.options.resize, "reference images")
            if request.reference is not None
            else None
        )
        return await asyncio.to_thread(self._score_latents, request, images, reference)

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

    async def _encode_uploads(self, uploads: Sequence[Upload], resize: Resize, what: str) -> Encoded:
        gate = asyncio.Semaphore(CHUNKS_IN_FLIGHT)
        spec, max_pixels = self.bundle.manifest.image, self.settings.max_image_pixels

        async def encode_chunk(chunk: Sequence[Upload]) -> tuple[Rows, list[Float32Array]]:
            async with gate:
                rows = await asyncio.to_thread(read_rows, chunk, spec, resize, max_pixels)
                return rows, [await self.encode(rows.pixels)] if len(rows.pixels) else []

        starts = range(0, len(uploads), CHUNK_ROWS)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(encode_chunk(uploads[at : at + CHUNK_ROWS])) for at in starts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        chunks = [task.result() for task in tasks]
        errors = {
            at + position: error
            for at, (rows, _) in zip(starts, chunks, strict=True)
            for position, error in rows.errors.items()
        }
        if len(errors) == len(uploads):
            first = errors[0]
            raise type(first)(
                f"None of the {len(uploads)} {what} can be used. The first, {uploads[0].id}: {first.message}",
                first.hint,
            )
        return Encoded(np.concatenate([latents for _, found in chunks for latents in found]), errors)

    def _score_latents(self, request: ScoreRequest, images: Encoded, reference: Encoded | None) -> ScoreResponse:
        options = request.options
        scores = scoring.score(
            images.latents,
            self.bundle.population,
            estimator=options.estimator,
            threshold=options.threshold,
            fdr=options.fdr,
            reference=reference.latents if reference else None,
        )
        warnings = list(scores.context.warnings)
        if reference and reference.errors:
            warnings.append(_unused_reference(request.reference or (), reference.errors))
        return ScoreResponse(
            bundle_id=self.bundle.manifest.bundle_id,
            model=self.bundle.manifest.model,
            context=ScoredContext(
                source=scores.context.source,
                size=scores.context.size,
                estimator=scores.context.estimator,
                contamination=scores.context.contamination,
                reliability=scores.context.reliability,
                warnings=warnings,
            ),
            items=_items(request.images, images.errors, scores),
        )


def _items(uploads: Sequence[Upload], errors: dict[int, MisfitError], scores: scoring.Scores) -> list[ScoredItem]:
    """One item for each upload, in order. `error` is set on failed items only, so only they show it."""
    columns = {
        name: getattr(scores, name).tolist()
        for name in ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")
    }
    if not all(np.isfinite(values).all() for values in columns.values()):
        raise MisfitError("The scores are not finite.")
    scored = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    items = []
    for index, upload in enumerate(uploads):
        if error := errors.get(index):
            detail = ErrorDetail(code=error.code, message=error.message, hint=error.hint)
            nothing = dict.fromkeys(columns)
            items.append(ScoredItem(index=index, id=upload.id, status="error", error=detail, **nothing))
        else:
            items.append(ScoredItem(index=index, id=upload.id, status="ok", **next(scored)))
    return items


def _unused_reference(uploads: Sequence[Upload], errors: dict[int, MisfitError]) -> str:
    position, first = next(iter(errors.items()))
    return (
        f"{len(errors)} of the {len(uploads)} reference images could not be used; "
        f"the first, {uploads[position].id}: {first.message}"
    )
