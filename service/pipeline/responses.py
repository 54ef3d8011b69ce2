"""From arrays to what clients read: items, contexts, attributions, sentences. Nothing is decided here.

An answer of many images is made in pieces (`service.pipeline.chunked_response`): what depends on all images is
computed at once, as arrays; the records of a piece only when it is their turn.
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
from service.api.schemas import EncodedItem, EncodeResponse, ErrorDetail, ScoredContext, ScoredItem, ScoreResponse
from service.bundle.store import Bundle
from service.core.detect.context import Context
from service.core.detect.scoring import Scores
from service.core.explain import attribution, minimal_sets, reasons
from service.core.explain.attribution import Attributions, Pairs
from service.core.types import BoolArray, Float64Array, IndexArray
from service.errors import MisfitError
from service.pipeline import record_sizes
from service.pipeline.batch import Batch, Encoded
from service.pipeline.chunked_response import EARLY_BYTES, Pieced, cut

TERMS = ("shapley", "shapley_odds", "conditional_z", "marginal_z")
SCORES = ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")


Record = dict[str, Any]  # fields of one of `service.api.schemas`, which checks them
Details = Callable[[slice], list[Record]]  # of some of the usable images, what their records say beside the scores
# In one go: to make thousands of small records one by one takes pydantic several times as long.
SCORED_ITEMS = TypeAdapter(list[ScoredItem])


@dataclass(frozen=True)
class Explained:
    """An explanation without its heat maps, and which there should be.

    details         what the records of some of the usable images say beside the scores
    record_bytes    of JSON, of one such record
    mapped  (m,)    rows of the usable images that get some, the most outlying first
    top     (m, t)  the latents whose maps are drawn
    signs   (m, t)  whether each is too far up (1) or down (-1)
    """

    details: Details
    record_bytes: int
    mapped: IndexArray
    top: IndexArray
    signs: Float64Array


@dataclass(frozen=True)
class _Reasons:
    """What there is to say of n images.

    order     (n, L)  latents, the most to blame first
    repaired  (n, L)  the minimal set of each flagged image
    scale     (n,)    by which the reported distance exceeds that to the context's own moments
    reasons   (n,)
    """

    terms: Attributions
    order: IndexArray
    repaired: BoolArray
    scale: Float64Array
    reasons: list[str]


def scored(batch: Batch, options: ScoreOptions, bundle: Bundle) -> Pieced[ScoreResponse]:
    """Return the answer of /score."""
    record_bytes = record_sizes.scored_item(options, bundle)
    if options.attributions == "none":
        return pieced(batch, bundle, partial(_familiarity, batch), np.full(len(batch.positions), record_bytes))
    found = _explain(batch, bundle)
    most = bundle.manifest.latent_dim if options.attributions == "all" else options.top

    def details(rows: slice) -> list[Record]:
        records = _familiarity(batch, rows)
        attributions = _attributions(found, most, batch, bundle, rows)
        for record, terms, reason in zip(records, attributions, found.reasons[rows], strict=True):
            record["attributions"] = terms
            record.setdefault("reason", reason)
        return records

    return pieced(batch, bundle, details, np.full(len(batch.positions), record_bytes))


def mapped(batch: Batch, options: ExplainOptions, most: int) -> IndexArray:
    """Return the rows of the usable images that get heat maps, the most outlying first and at most `most`."""
    scores = _scores(batch)
    by_rank = np.argsort(scores.rank)
    wanted = {"none": by_rank[:0], "flagged": by_rank[scores.is_outlier[by_rank]], "all": by_rank}[options.heat_maps]
    return wanted[:most]


def explained(batch: Batch, mapped: IndexArray, options: ExplainOptions, bundle: Bundle) -> Explained:
    """Return the answer of /explain, but for the heat maps of the images in the rows `mapped`."""
    found = _explain(batch, bundle)
    latents = bundle.manifest.latents
    most = bundle.manifest.latent_dim if options.attributions == "all" else options.top
    factors = _factors(found, bundle)
    pairs = attribution.pairs(batch.images.latents, batch.context, bundle.population) if options.interactions else None

    def details(rows: slice) -> list[Record]:
        records = _familiarity(batch, rows)
        reasons = zip(_attributions(found, most, batch, bundle, rows), factors(rows), found.reasons[rows], strict=True)
        for record, repaired, (terms, shares, reason) in zip(records, found.repaired[rows], reasons, strict=True):
            record["attributions"] = terms
            record.setdefault("reason", reason)
            record["minimal_set"] = [latents[dim].name for dim in np.flatnonzero(repaired)]
            record["factors"] = shares
        if pairs is not None:
            for record, interactions in zip(records, _interactions(found, pairs, bundle, rows), strict=True):
                record["interactions"] = interactions
        return records

    top = found.order[mapped, : maps_of_image(options, bundle)]
    signs = np.sign(np.take_along_axis(found.terms.marginal_z[mapped], top, axis=1))
    record_bytes = record_sizes.explained_item(options, bundle)
    if record_bytes * len(found.reasons) <= EARLY_BYTES:
        # The networks are at work on the heat maps meanwhile.
        made = details(slice(0, len(found.reasons)))
        return Explained(lambda rows: [record.copy() for record in made[rows]], record_bytes, mapped, top, signs)
    return Explained(details, record_bytes, mapped, top, signs)


def pieced(batch: Batch, bundle: Bundle, details: Details, weights: NDArray[np.int64]) -> Pieced[ScoreResponse]:
    """Return the answer, an item for each image, of usable images whose records weigh `weights` (k,) bytes of JSON."""
    scores, images = _scores(batch), batch.images
    if not all(np.isfinite(getattr(scores, name)).all() for name in SCORES):
        raise MisfitError("The scores are not finite.")
    _check_ids(images)
    positions = np.array(images.positions, dtype=np.intp)
    whole = record_sizes.failed_items(images.ids)
    whole[positions] = record_sizes.longest_texts(images.ids)[positions] + weights

    def records() -> Iterator[list[ScoredItem]]:
        for places in cut(whole):
            rows = slice(*np.searchsorted(positions, (places.start, places.stop)).tolist())
            yield SCORED_ITEMS.validate_python(_items(images, scores, places, rows, details(rows)))

    head = ScoreResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        context=scored_context(batch.context),
        items=[],
    )
    return Pieced(head, "items", records)


def encoded(images: Encoded, bundle: Bundle) -> Pieced[EncodeResponse]:
    """Return the answer of /encode."""
    _check_ids(images)
    positions = np.array(images.positions, dtype=np.intp)
    weights = record_sizes.failed_items(images.ids)
    weights[positions] = record_sizes.longest_texts(images.ids)[positions] + record_sizes.encoded_item(bundle)

    def records() -> Iterator[list[EncodedItem]]:
        for places in cut(weights):
            rows = slice(*np.searchsorted(positions, (places.start, places.stop)).tolist())
            yield _encoded_items(images, places, rows)

    head = EncodeResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        latents=[latent.name for latent in bundle.manifest.latents],
        items=[],
    )
    return Pieced(head, "items", records)


def _encoded_items(images: Encoded, places: slice, rows: slice) -> list[EncodedItem]:
    items, latents = [], iter(images.latents[rows].tolist())
    for index, id_ in enumerate(images.ids[places], start=places.start):
        if error := images.errors.get(index):
            items.append(EncodedItem(index=index, id=id_, status="error", mean=None, logvar=None, error=_detail(error)))
        else:
            mean, logvar = next(latents)
            items.append(EncodedItem(index=index, id=id_, status="ok", mean=mean, logvar=logvar))
    return items


def scored_context(context: Context) -> ScoredContext:
    return ScoredContext(
        source=context.source,
        size=context.size,
        estimator=context.estimator,
        contamination=context.contamination,
        reliability=context.reliability,
        warnings=list(context.warnings),
    )


def errors_by_id(images: Encoded) -> dict[str, ErrorDetail]:
    """Return every error by its image's id, in the order of the request.

    Of several failed images with one id, all but the first get " (2)", " (3)", ... added to it; a number that would
    make it another failed image's id is left out.
    """
    ids, times = {images.ids[position] for position in images.errors}, Counter[str]()
    told: dict[str, ErrorDetail] = {}
    for position, error in images.errors.items():
        id_ = name = images.ids[position]
        times[id_] += 1
        if times[id_] > 1:
            while (name := f"{id_} ({times[id_]})") in ids:
                times[id_] += 1
        told[name] = _detail(error)
    return told


def unused(images: Encoded) -> str | None:
    """What to warn of where some images of a context could not be used, or are like nothing the model knows."""
    parts = []
    if images.errors:
        position, first = next(iter(images.errors.items()))
        parts.append(
            f"{len(images.errors)} of the {len(images.ids)} reference images could not be used; "
            f"the first, {images.ids[position]}: {first.message}"
        )
    if foreign := len(images.latents) - len(images.native):
        parts.append(f"{foreign} of the {len(images.ids)} reference images look foreign and were left out.")
    return " ".join(parts) or None


def _check_ids(images: Encoded) -> None:
    """Raises UnicodeEncodeError where an id holds what is no character: once an answer is begun it is too late."""
    "".join(images.ids).encode()


def _items(images: Encoded, scores: Scores, places: slice, rows: slice, details: Sequence[Record]) -> list[Record]:
    """Return a ScoredItem for each image in `places` of the request, in order; `rows` are the usable ones among them.

    `error` is set on failed items only, so only they show it.
    """
    columns = {name: getattr(scores, name)[rows].tolist() for name in SCORES}
    usable = zip(zip(*columns.values(), strict=True), details, strict=True)
    items: list[Record] = []
    for position, id_ in enumerate(images.ids[places], start=places.start):
        index = images.first + position
        if error := images.errors.get(position):
            nothing: Record = dict.fromkeys(columns)
            items.append({"index": index, "id": id_, "status": "error", "error": _detail(error), **nothing})
        else:
            values, detail = next(usable)
            shown = dict(zip(columns, values, strict=True)) | detail
            items.append({"index": index, "id": id_, "status": "ok", **shown})
    return items


def _explain(batch: Batch, bundle: Bundle) -> _Reasons:
    latents, context, population = batch.images.latents, batch.context, bundle.population
    scores = _scores(batch)
    is_outlier = scores.is_outlier
    terms = attribution.attribute(latents, context, population)
    # Only `leave_one_out` measures from other moments than the context's: in the same proportions (Sherman-Morrison).
    own = terms.shapley.sum(axis=1)
    scale = np.divide(scores.mahalanobis_squared, own, out=np.ones_like(own), where=own > 0)
    terms = replace(terms, shapley=terms.shapley * scale[:, None])
    # What is not flagged needs no repair.
    repaired = np.zeros(terms.shapley.shape, dtype=bool)
    deviations = np.zeros(terms.shapley.shape)
    repaired[is_outlier] = minimal_sets.minimal_sets(latents[is_outlier], context, population)
    deviations[is_outlier] = minimal_sets.repair_z(latents[is_outlier], repaired[is_outlier], context, population)
    sentences = reasons.sentences(repaired, deviations, is_outlier, bundle.manifest.latents, context)
    return _Reasons(terms, attribution.order(terms, context), repaired, scale, sentences)


def _attributions(found: _Reasons, most: int, batch: Batch, bundle: Bundle, rows: slice) -> list[list[Record]]:
    """For each usable image in `rows` a LatentAttribution of its `most` latents that speak most for an outlier."""
    names, dead = [latent.name for latent in bundle.manifest.latents], found.terms.dead.tolist()
    order = found.order[rows, :most]
    terms = {name: getattr(found.terms, name)[rows] for name in TERMS} | {"value": batch.images.latents[rows, 0]}
    columns = [np.take_along_axis(values, order, axis=1).tolist() for values in terms.values()]
    return [
        [
            {"latent": names[dim], "index": dim, "dead": dead[dim], **dict(zip(terms, values, strict=True))}
            for dim, *values in zip(*row, strict=True)
        ]
        for row in zip(order.tolist(), *columns, strict=True)
    ]


def _factors(found: _Reasons, bundle: Bundle) -> Callable[[slice], list[list[Record]]]:
    """Return what makes, of some of the usable images, every FactorAttribution of each."""
    terms = (found.terms.shapley, found.terms.shapley_odds)
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


def _interactions(found: _Reasons, pairs: Pairs, bundle: Bundle, rows: slice) -> list[list[Record]]:
    """For each usable image in `rows` the pairs of live latents, by what they add to its squared distance."""
    matrices = pairs(rows)
    matrices *= found.scale[rows, None, None]
    names = [latent.name for latent in bundle.manifest.latents]
    live = combinations_with_replacement(bundle.population.live_dims.tolist(), 2)
    places = [(j, k, (names[j], names[k]), 1 if j == k else 2) for j, k in live]
    return [
        # The matrix holds each pair of two twice.
        [{"latents": latents, "value": matrix[j, k] * times} for j, k, latents, times in places]
        for matrix in matrices
    ]


def _scores(batch: Batch) -> Scores:
    assert batch.scores is not None, "scores are of images"
    return batch.scores


def _familiarity(batch: Batch, rows: slice) -> list[Record]:
    """For each usable image in `rows` whether it looks foreign, and why; nothing where nobody asked."""
    check = batch.images.check
    if check is None:
        return [{} for _ in batch.images.latents[rows]]
    return [
        {"is_foreign": True, "reason": check.reason(row)} if foreign else {"is_foreign": False}
        for row, foreign in enumerate(check.is_ood[rows].tolist(), start=rows.start)
    ]


def _detail(error: MisfitError) -> ErrorDetail:
    return ErrorDetail(code=error.code, message=error.message, hint=error.hint)
