"""Arrays to the schemas that clients read: items, contexts, attributions, sentences. Nothing is decided here.

An answer of many images is made in chunks (`service.pipeline.chunked_response`): arrays over all images are computed
at once, the records of a chunk only when the transport asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from service.api.options import ExplainOptions, ScoreOptions, maps_of_image
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
from service.core.explain import attribution, minimal_sets, reasons
from service.core.explain.attribution import Attributions, Pairs
from service.core.types import BoolArray, Float64Array, IndexArray
from service.errors import MisfitError
from service.pipeline import record_sizes
from service.pipeline.batch import Batch, EncodedImages, NearestImages
from service.pipeline.chunked_response import EARLY_BYTES, ChunkedResponse, cut

TERMS = ("shapley", "shapley_odds", "conditional_z", "marginal_z")
SCORES = ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")


Record = dict[str, Any]  # fields of one of `service.api.schemas`, which checks them
Details = Callable[[slice], list[Record]]  # the fields beside the scores, of some of the usable images
# Many at once: pydantic takes several times as long to validate thousands of small records one by one.
SCORED_ITEMS = TypeAdapter(list[ScoredItem])


@dataclass(frozen=True)
class ExplanationWithoutMaps:
    """An explanation whose heat maps are still to be drawn.

    details         the fields beside the scores, of some of the usable images
    record_bytes    of JSON, of one item
    mapped  (m,)    rows of the usable images that get heat maps, the most outlying first
    top     (m, t)  the latents whose maps are drawn
    signs   (m, t)  whether each latent is too far up (1) or down (-1)
    """

    details: Details
    record_bytes: int
    mapped: IndexArray
    top: IndexArray
    signs: Float64Array


@dataclass(frozen=True)
class _Explanations:
    """Why n images were scored as they were.

    order     (n, L)  latents, the most to blame first
    repaired  (n, L)  the minimal set of each flagged image
    scale     (n,)    ratio of the reported distance to the distance to the context's own moments
    reasons   (n,)    sentences
    """

    terms: Attributions
    order: IndexArray
    repaired: BoolArray
    scale: Float64Array
    reasons: list[str]


def build_score_response(batch: Batch, options: ScoreOptions, bundle: Bundle) -> ChunkedResponse[ScoreResponse]:
    """Return the answer of /score."""
    record_bytes = record_sizes.scored_item(options, bundle)
    if options.attributions == "none":
        return build_chunked_score_response(
            batch, bundle, partial(_describe_check, batch, bundle), np.full(len(batch.positions), record_bytes)
        )
    explanations = _explain(batch, bundle)
    limit = bundle.manifest.latent_dim if options.attributions == "all" else options.top

    def details(rows: slice) -> list[Record]:
        records = _describe_check(batch, bundle, rows)
        attributions = _build_attributions(explanations, limit, batch, bundle, rows)
        for record, terms, reason in zip(records, attributions, explanations.reasons[rows], strict=True):
            record["attributions"] = terms
            record.setdefault("reason", reason)
        return records

    return build_chunked_score_response(batch, bundle, details, np.full(len(batch.positions), record_bytes))


def select_mapped_rows(batch: Batch, options: ExplainOptions, limit: int) -> NDArray[np.intp]:
    """Return the rows of the usable images that get heat maps, the most outlying first and at most `limit`."""
    scores = _require_scores(batch)
    by_rank = np.argsort(scores.rank)
    selected = {"none": by_rank[:0], "flagged": by_rank[scores.is_outlier[by_rank]], "all": by_rank}[options.heat_maps]
    return selected[:limit]


def explain_without_maps(
    batch: Batch, mapped: NDArray[np.intp], options: ExplainOptions, bundle: Bundle
) -> ExplanationWithoutMaps:
    """Explain the scores; the heat maps of the images in the rows `mapped` (m,) are still to be drawn."""
    explanations = _explain(batch, bundle)
    latents = bundle.manifest.latents
    limit = bundle.manifest.latent_dim if options.attributions == "all" else options.top
    factors = _make_factors(explanations, bundle)
    pairs = attribution.pairs(batch.images.latents, batch.context, bundle.population) if options.interactions else None

    def details(rows: slice) -> list[Record]:
        records = _describe_check(batch, bundle, rows)
        details_of = zip(
            _build_attributions(explanations, limit, batch, bundle, rows),
            factors(rows),
            explanations.reasons[rows],
            explanations.repaired[rows],
            strict=True,
        )
        for record, (terms, shares, reason, repaired) in zip(records, details_of, strict=True):
            record["attributions"] = terms
            record.setdefault("reason", reason)
            record["minimal_set"] = [latents[dim].name for dim in np.flatnonzero(repaired)]
            record["factors"] = shares
        if pairs is not None:
            for record, interactions in zip(
                records, _build_interactions(explanations, pairs, bundle, rows), strict=True
            ):
                record["interactions"] = interactions
        return records

    top = explanations.order[mapped, : maps_of_image(options, bundle)]
    signs = np.sign(np.take_along_axis(explanations.terms.marginal_z[mapped], top, axis=1))
    record_bytes = record_sizes.explained_item(options, bundle)
    if record_bytes * len(explanations.reasons) <= EARLY_BYTES:
        # Make the records now, while the networks work on the heat maps.
        early_records = details(slice(0, len(explanations.reasons)))
        return ExplanationWithoutMaps(
            lambda rows: [record.copy() for record in early_records[rows]], record_bytes, mapped, top, signs
        )
    return ExplanationWithoutMaps(details, record_bytes, mapped, top, signs)


def build_chunked_score_response(
    batch: Batch, bundle: Bundle, details: Details, weights: NDArray[np.int64]
) -> ChunkedResponse[ScoreResponse]:
    """Return the answer, an item for each image. `weights` (k,) are the bytes of JSON of each usable image's item."""
    scores, images = _require_scores(batch), batch.images
    if not all(np.isfinite(getattr(scores, name)).all() for name in SCORES):
        raise MisfitError("The scores are not finite.")
    _check_ids(images)
    positions = np.array(images.positions, dtype=np.intp)
    item_bytes = record_sizes.failed_items(images.ids)
    item_bytes[positions] = record_sizes.longest_texts(images.ids)[positions] + weights
    if batch.nearest is not None:
        item_bytes[positions] += record_sizes.longest_texts(batch.nearest.ids)[batch.nearest.positions].sum(axis=1)

    def records() -> Iterator[list[ScoredItem]]:
        for places in cut(item_bytes):
            rows = slice(*np.searchsorted(positions, (places.start, places.stop)).tolist())
            fields = details(rows)
            if batch.nearest is not None:
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
    return ChunkedResponse(head, "items", records)


def build_encode_response(
    images: EncodedImages, warnings: list[str], bundle: Bundle
) -> ChunkedResponse[EncodeResponse]:
    """Return the answer of /encode."""
    _check_ids(images)
    positions = np.array(images.positions, dtype=np.intp)
    weights = record_sizes.failed_items(images.ids)
    weights[positions] = record_sizes.longest_texts(images.ids)[positions] + record_sizes.encoded_item(bundle)

    def records() -> Iterator[list[EncodedItem]]:
        for places in cut(weights):
            rows = slice(*np.searchsorted(positions, (places.start, places.stop)).tolist())
            yield _build_encoded_items(images, places, rows)

    head = EncodeResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        latents=[latent.name for latent in bundle.manifest.latents],
        warnings=warnings,
        items=[],
    )
    return ChunkedResponse(head, "items", records)


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
        for positions, distances in zip(nearest.positions[rows].tolist(), nearest.distances[rows].tolist(), strict=True)
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


def _explain(batch: Batch, bundle: Bundle) -> _Explanations:
    latents, context, population = batch.images.latents, batch.context, bundle.population
    scores = _require_scores(batch)
    is_outlier = scores.is_outlier
    terms = attribution.attribute(latents, context, population)
    # Only `leave_one_out` measures from other moments than the context's: in the same proportions (Sherman-Morrison).
    own_distances = terms.shapley.sum(axis=1)
    scale = np.divide(
        scores.mahalanobis_squared, own_distances, out=np.ones_like(own_distances), where=own_distances > 0
    )
    terms = replace(terms, shapley=terms.shapley * scale[:, None])
    # What is not flagged needs no repair.
    repaired = np.zeros(terms.shapley.shape, dtype=bool)
    deviations = np.zeros(terms.shapley.shape)
    repaired[is_outlier] = minimal_sets.minimal_sets(latents[is_outlier], context, population)
    deviations[is_outlier] = minimal_sets.repair_z(latents[is_outlier], repaired[is_outlier], context, population)
    sentences = reasons.sentences(repaired, deviations, is_outlier, bundle.manifest.latents, context)
    return _Explanations(terms, attribution.order(terms, context), repaired, scale, sentences)


def _build_attributions(
    explanations: _Explanations, limit: int, batch: Batch, bundle: Bundle, rows: slice
) -> list[list[Record]]:
    """Return for each usable image in `rows` the LatentAttributions of its first `limit` latents in `order`."""
    names, dead = [latent.name for latent in bundle.manifest.latents], explanations.terms.dead.tolist()
    order = explanations.order[rows, :limit]
    terms = {name: getattr(explanations.terms, name)[rows] for name in TERMS} | {"value": batch.images.latents[rows, 0]}
    columns = [np.take_along_axis(values, order, axis=1).tolist() for values in terms.values()]
    return [
        [
            {"latent": names[dim], "index": dim, "dead": dead[dim], **dict(zip(terms, values, strict=True))}
            for dim, *values in zip(*row, strict=True)
        ]
        for row in zip(order.tolist(), *columns, strict=True)
    ]


def _make_factors(explanations: _Explanations, bundle: Bundle) -> Callable[[slice], list[list[Record]]]:
    """Return a function that gives the FactorAttributions of some of the usable images."""
    terms = (explanations.terms.shapley, explanations.terms.shapley_odds)
    distance, odds = (attribution.groups(values, bundle.manifest.latents) for values in terms)
    shares = np.array([[distance[factor], odds[factor]] for factor in distance]).transpose(2, 0, 1)  # (n, factors, 2)

    def factors(rows: slice) -> list[list[Record]]:
        return [
            [
                {"factor": factor, "shapley": of_distance, "shapley_odds": of_odds}
                for factor, (of_distance, of_odds) in zip(distance, row, strict=True)
            ]
            for row in shares[rows].tolist()
        ]

    return factors


def _build_interactions(explanations: _Explanations, pairs: Pairs, bundle: Bundle, rows: slice) -> list[list[Record]]:
    """Return for each usable image in `rows` the Interactions of all pairs of live latents."""
    matrices = pairs(rows)
    matrices *= explanations.scale[rows, None, None]
    names = [latent.name for latent in bundle.manifest.latents]
    live = combinations_with_replacement(bundle.population.live_dims.tolist(), 2)
    places = [(j, k, (names[j], names[k]), 1 if j == k else 2) for j, k in live]
    return [
        # The matrix holds each pair of two twice.
        [{"latents": latents, "value": matrix[j, k] * times} for j, k, latents, times in places]
        for matrix in matrices
    ]


def _require_scores(batch: Batch) -> Scores:
    assert batch.scores is not None, "scores are of images"
    return batch.scores


def _describe_check(batch: Batch, bundle: Bundle, rows: slice) -> list[Record]:
    """Return for each usable image in `rows` whether it is foreign, and why; nothing where that was not checked."""
    check = batch.images.check
    if check is None:
        return [{} for _ in batch.images.latents[rows]]
    return [
        {"is_foreign": True, "reason": _name_properties(batch.images.latents[row, 0], bundle) or check.reason(row)}
        if foreign
        else {"is_foreign": False}
        for row, foreign in enumerate(check.is_ood[rows].tolist(), start=rows.start)
    ]


def _name_properties(latents: Float64Array, bundle: Bundle) -> str | None:
    """Return which properties of a foreign photograph, from its latents (L,), lie outside what was learned, if any."""
    if bundle.projection is None:
        return None
    measured = [latent.index for latent in bundle.manifest.latents if latent.unit is not None]
    reach = dict(zip(measured, bundle.projection.property_reach.tolist(), strict=True))
    off = {index: float(latents[index]) for index in measured if abs(latents[index]) > reach[index]}
    names = {bundle.manifest.latents[index].name: off[index] for index in sorted(off, key=lambda each: -abs(off[each]))}
    return reasons.describe(names, None, True, "the learned photographs") if names else None


def _build_detail(error: MisfitError) -> ErrorDetail:
    return ErrorDetail(code=error.code, message=error.message, hint=error.hint)
