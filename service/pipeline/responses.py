"""Arrays to the schemas that clients read: items, contexts, groups, errors. Nothing is decided here.

An answer of many images is made in chunks (`service.pipeline.chunked_response`): arrays over all images are computed
at once, the records of a chunk only when the transport asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from service.api.options import ScoreOptions
from service.api.schemas import (
    EncodedItem,
    EncodeResponse,
    ErrorDetail,
    ImageGroup,
    ScoredContext,
    ScoredItem,
    ScoreResponse,
)
from service.bundle.store import Bundle
from service.core.detect.context import Context
from service.core.detect.scoring import Scores
from service.errors import MisfitError
from service.pipeline import record_sizes
from service.pipeline.batch import Batch, EncodedImages, NearestImages
from service.pipeline.chunked_response import ChunkedResponse, cut
from service.pipeline.explain import item_details
from service.pipeline.explain.item_details import Details, Record
from service.short_work import SHORT_IMAGES

SCORES = ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")
# Many at once: pydantic takes several times as long to validate thousands of small records one by one.
SCORED_ITEMS = TypeAdapter(list[ScoredItem])


def build_score_response(batch: Batch, options: ScoreOptions, bundle: Bundle) -> ChunkedResponse[ScoreResponse]:
    """Return the answer of /score."""
    details = item_details.describe_scores(batch, options, bundle)
    weights = record_sizes.scored_item(options, bundle)
    is_short = options.attributions == "none" and len(batch.images.ids) <= SHORT_IMAGES
    return build_chunked_score_response(batch, bundle, details, weights, is_short=is_short)


def build_chunked_score_response(
    batch: Batch, bundle: Bundle, details: Details, weights: NDArray[np.int64] | int, *, is_short: bool = False
) -> ChunkedResponse[ScoreResponse]:
    """Return the answer, an item for each image. `weights` are the bytes of JSON of each usable image's item, (k,) or
    alike.
    """
    scores, images = batch.require_scores(), batch.images
    if not all(np.isfinite(getattr(scores, name)).all() for name in SCORES):
        raise MisfitError("The scores are not finite.")
    _check_ids(images)
    if batch.nearest is not None and not is_short:  # in the item, and in its reason
        weights = weights + 2 * record_sizes.longest_texts(batch.nearest.ids)[batch.nearest.positions].sum(axis=1)

    def records() -> Iterator[list[ScoredItem]]:
        for places, rows in _cut_items(images, weights, is_short=is_short):
            fields = details(rows)
            if batch.nearest is not None and batch.nearest.shown:
                for record, neighbours in zip(fields, _build_neighbours(batch.nearest, rows), strict=True):
                    record["nearest"] = neighbours
            yield SCORED_ITEMS.validate_python(_build_items(images, scores, places, rows, fields))

    # A field that nobody asked for is not set, so that no answer shows it.
    asked: Record = {} if batch.duplicates is None else {"duplicates": [each.tolist() for each in batch.duplicates]}
    head = ScoreResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        context=build_scored_context(batch.context),
        groups=_build_groups(batch, bundle),
        items=[],
        **asked,
    )
    return ChunkedResponse(head, "items", records, is_short)


def build_encode_response(
    images: EncodedImages, warnings: list[str], bundle: Bundle
) -> ChunkedResponse[EncodeResponse]:
    """Return the answer of /encode."""
    _check_ids(images)
    is_short = len(images.ids) <= SHORT_IMAGES

    def records() -> Iterator[list[EncodedItem]]:
        for places, rows in _cut_items(images, record_sizes.encoded_item(bundle), is_short=is_short):
            yield _build_encoded_items(images, places, rows)

    head = EncodeResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        latents=[latent.name for latent in bundle.manifest.latents],
        warnings=warnings,
        items=[],
    )
    return ChunkedResponse(head, "items", records, is_short)


def _cut_items(
    images: EncodedImages, weights: NDArray[np.int64] | int, *, is_short: bool
) -> Iterator[tuple[slice, slice]]:
    """Yield the places in the request, and the rows of the usable images among them, of one piece after the other.

    weights   of the items of usable images, (k,) or alike, but for their ids
    is_short  all of it is one piece
    """
    if is_short:
        yield slice(0, len(images.ids)), slice(0, len(images.latents))
        return
    positions = np.array(images.positions, dtype=np.intp)
    item_bytes = record_sizes.failed_items(images.ids)
    item_bytes[positions] = record_sizes.longest_texts(images.ids)[positions] + weights
    for places in cut(item_bytes):
        yield places, slice(*np.searchsorted(positions, (places.start, places.stop)).tolist())


def _build_encoded_items(images: EncodedImages, places: slice, rows: slice) -> list[EncodedItem]:
    items, latents = [], iter(images.latents[rows].tolist())
    for index, id_ in enumerate(images.ids[places], start=places.start):
        if error := images.errors.get(index):
            items.append(
                EncodedItem(index=index, id=id_, status="error", mean=None, logvar=None, error=_build_detail(error))
            )
        else:
            mean, logvar = next(latents)
            items.append(EncodedItem(index=index, id=id_, status="ok", mean=mean, logvar=logvar))
    return items


def build_scored_context(context: Context) -> ScoredContext:
    """Return what an answer says of the context."""
    return ScoredContext(
        source=context.source,
        size=context.size,
        estimator=context.estimator,
        contamination=context.contamination,
        reliability=context.reliability,
        warnings=list(context.warnings),
    )


def _build_groups(batch: Batch, bundle: Bundle) -> list[ImageGroup]:
    live = bundle.population.live_dims
    return [
        ImageGroup(
            members=group.members.tolist(),
            share=group.share,
            latents=[bundle.manifest.latents[dim].name for dim in live[group.axes]],
            misfit_probability=group.are_misfits,
        )
        for group in batch.groups
    ]


def _build_neighbours(nearest: NearestImages, rows: slice) -> list[list[Record]]:
    """Return for each usable image in `rows` its Neighbours."""
    return [
        [
            {"id": nearest.ids[position], "index": position, "distance": distance}
            for position, distance in zip(positions, distances, strict=True)
        ]
        for positions, distances in zip(
            nearest.positions[rows, : nearest.shown].tolist(),
            nearest.distances[rows, : nearest.shown].tolist(),
            strict=True,
        )
    ]


def errors_by_id(images: EncodedImages) -> dict[str, ErrorDetail]:
    """Return every error by its image's id, in the order of the request.

    Of several failed images with one id, all but the first get " (2)", " (3)", ... added to it; a number that would
    make it another failed image's id is left out.
    """
    ids, times = {images.ids[position] for position in images.errors}, Counter[str]()
    errors: dict[str, ErrorDetail] = {}
    for position, error in images.errors.items():
        id_ = name = images.ids[position]
        times[id_] += 1
        if times[id_] > 1:
            while (name := f"{id_} ({times[id_]})") in ids:
                times[id_] += 1
        errors[name] = _build_detail(error)
    return errors


def warn_of_unused(images: EncodedImages) -> str | None:
    """Return a warning where images of a context could not be used or are out of distribution, else None."""
    sentences = []
    if images.errors:
        position, first = next(iter(images.errors.items()))
        sentences.append(
            f"{len(images.errors)} of the {len(images.ids)} reference images could not be used; "
            f"the first, {images.ids[position]}: {first.message}"
        )
    if foreign := len(images.latents) - len(images.native):
        sentences.append(f"{foreign} of the {len(images.ids)} reference images look foreign and were left out.")
    return " ".join(sentences) or None


def _check_ids(images: EncodedImages) -> None:
    """Raise UnicodeEncodeError where an id holds no valid character, before an answer is begun."""
    "".join(images.ids).encode()


def _build_items(
    images: EncodedImages, scores: Scores, places: slice, rows: slice, details: Sequence[Record]
) -> list[Record]:
    """Return a ScoredItem for each image in `places` of the request, in order; `rows` are the usable ones among them.

    `error` is set on failed items only, so only they show it.
    """
    columns = {name: getattr(scores, name)[rows].tolist() for name in SCORES}
    usable = zip(zip(*columns.values(), strict=True), details, strict=True)
    items: list[Record] = []
    for position, id_ in enumerate(images.ids[places], start=places.start):
        index = images.first + position
        if error := images.errors.get(position):
            no_scores: Record = dict.fromkeys(columns)
            items.append({"index": index, "id": id_, "status": "error", "error": _build_detail(error), **no_scores})
        else:
            values, detail = next(usable)
            fields = dict(zip(columns, values, strict=True)) | detail
            items.append({"index": index, "id": id_, "status": "ok", **fields})
    return items


def _build_detail(error: MisfitError) -> ErrorDetail:
    return ErrorDetail(code=error.code, message=error.message, hint=error.hint)
