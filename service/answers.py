"""From arrays to what clients read: items, contexts, attributions, sentences. Nothing is decided here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import attribution, wording
from service.attribution import Attributions
from service.batch import Batch, Encoded
from service.bundle import Bundle
from service.context import Context
from service.errors import MisfitError
from service.options import ExplainOptions, ScoreOptions
from service.schemas import (
    EncodedItem,
    EncodeResponse,
    ErrorDetail,
    ScoredContext,
    ScoreResponse,
)
from service.scoring import Scores

TERMS = ("shapley", "shapley_odds", "conditional_z", "marginal_z")
SCORES = ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")


Record = dict[str, Any]  # fields of one of `service.schemas`, which checks them


@dataclass(frozen=True)
class Explained:
    """An explanation without its heat maps, and which there should be.

    mapped  (m,)    rows of the usable images that get some, the most outlying first
    top     (m, t)  the latents whose maps are drawn
    signs   (m, t)  whether each is too far up (1) or down (-1)
    """

    response: ScoreResponse
    mapped: NDArray[np.intp]
    top: NDArray[np.intp]
    signs: NDArray[np.float64]


@dataclass(frozen=True)
class _Reasons:
    """What there is to say of n images.

    order     (n, L)  latents, the most to blame first
    repaired  (n, L)  the minimal set of each flagged image
    scale     (n,)    by which the reported distance exceeds that to the context's own moments
    reasons   (n,)
    """

    terms: Attributions
    order: NDArray[np.intp]
    repaired: NDArray[np.bool_]
    scale: NDArray[np.float64]
    reasons: list[str]


def scored(batch: Batch, options: ScoreOptions, bundle: Bundle) -> ScoreResponse:
    """The answer of /score."""
    details = _familiarity(batch)
    if options.attributions != "none":
        found = _explain(batch, bundle)
        most = bundle.manifest.latent_dim if options.attributions == "all" else options.top
        for detail, terms, reason in zip(
            details, _attributions(found, most, batch, bundle), found.reasons, strict=True
        ):
            detail["attributions"] = terms
            detail.setdefault("reason", reason)
    return _response(batch, bundle, details)


def mapped(batch: Batch, options: ExplainOptions) -> NDArray[np.intp]:
    """Rows of the usable images that get heat maps, the most outlying first."""
    scores = _scores(batch)
    by_rank = np.argsort(scores.rank)
    return {"none": by_rank[:0], "flagged": by_rank[scores.is_outlier[by_rank]], "all": by_rank}[options.heat_maps]


def explained(batch: Batch, mapped: NDArray[np.intp], options: ExplainOptions, bundle: Bundle) -> Explained:
    """The answer of /explain, but for the heat maps of the images in the rows `mapped`."""
    found, details = _explain(batch, bundle), _familiarity(batch)
    latents = bundle.manifest.latents
    most = bundle.manifest.latent_dim if options.attributions == "all" else options.top
    reasons = zip(_attributions(found, most, batch, bundle), _factors(found, bundle), found.reasons, strict=True)
    for detail, repaired, (terms, factors, reason) in zip(details, found.repaired, reasons, strict=True):
        detail["attributions"] = terms
        detail.setdefault("reason", reason)
        detail["minimal_set"] = [latents[dim].name for dim in np.flatnonzero(repaired)]
        detail["factors"] = factors
    if options.interactions:
        for detail, pairs in zip(details, _interactions(found, batch, bundle), strict=True):
            detail["interactions"] = pairs
    top = found.order[mapped, : min(options.top, len(bundle.population.live_dims))]
    signs = np.sign(np.take_along_axis(found.terms.marginal_z[mapped], top, axis=1))
    return Explained(_response(batch, bundle, details), mapped, top, signs)


def encoded(images: Encoded, bundle: Bundle) -> EncodeResponse:
    """The answer of /encode."""
    items, latents = [], iter(images.latents.tolist())
    for index, id_ in enumerate(images.ids):
        if error := images.errors.get(index):
            items.append(EncodedItem(index=index, id=id_, status="error", mean=None, logvar=None, error=_detail(error)))
        else:
            mean, logvar = next(latents)
            items.append(EncodedItem(index=index, id=id_, status="ok", mean=mean, logvar=logvar))
    return EncodeResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        latents=[latent.name for latent in bundle.manifest.latents],
        items=items,
    )


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


def _response(batch: Batch, bundle: Bundle, details: Sequence[Record]) -> ScoreResponse:
    # In one go: to make thousands of small records one by one takes pydantic several times as long.
    return ScoreResponse.model_validate(
        {
            "bundle_id": bundle.manifest.bundle_id,
            "model": bundle.manifest.model,
            "context": scored_context(batch.context),
            "items": _items(batch.images, _scores(batch), details),
        }
    )


def _items(images: Encoded, scores: Scores, details: Sequence[Record]) -> list[Record]:
    """One ScoredItem for each image, in order. `error` is set on failed items only, so only they show it."""
    columns = {name: getattr(scores, name).tolist() for name in SCORES}
    if not all(np.isfinite(values).all() for values in columns.values()):
        raise MisfitError("The scores are not finite.")
    rows = zip(zip(*columns.values(), strict=True), details, strict=True)
    items: list[Record] = []
    for position, id_ in enumerate(images.ids):
        index = images.first + position
        if error := images.errors.get(position):
            nothing: Record = dict.fromkeys(columns)
            items.append({"index": index, "id": id_, "status": "error", "error": _detail(error), **nothing})
        else:
            values, detail = next(rows)
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
    repaired[is_outlier] = attribution.minimal_sets(latents[is_outlier], context, population)
    deviations[is_outlier] = attribution.repair_z(latents[is_outlier], repaired[is_outlier], context, population)
    reasons = wording.sentences(repaired, deviations, is_outlier, bundle.manifest.latents, context)
    return _Reasons(terms, attribution.order(terms, context), repaired, scale, reasons)


def _attributions(found: _Reasons, most: int, batch: Batch, bundle: Bundle) -> list[list[Record]]:
    """For each usable image a LatentAttribution of its `most` latents that speak most for an outlier, in that order."""
    names, dead = [latent.name for latent in bundle.manifest.latents], found.terms.dead.tolist()
    order = found.order[:, :most]
    terms = {name: getattr(found.terms, name) for name in TERMS} | {"value": batch.images.latents[:, 0]}
    columns = [np.take_along_axis(values, order, axis=1).tolist() for values in terms.values()]
    return [
        [
            {"latent": names[dim], "index": dim, "dead": dead[dim], **dict(zip(terms, values, strict=True))}
            for dim, *values in zip(*row, strict=True)
        ]
        for row in zip(order.tolist(), *columns, strict=True)
    ]


def _factors(found: _Reasons, bundle: Bundle) -> list[list[Record]]:
    """For each usable image every FactorAttribution."""
    terms = (found.terms.shapley, found.terms.shapley_odds)
    distance, odds = (attribution.groups(values, bundle.manifest.latents) for values in terms)
    shares = np.array([[distance[factor], odds[factor]] for factor in distance]).transpose(2, 0, 1)  # (n, factors, 2)
    return [
        [
            {"factor": factor, "shapley": of_distance, "shapley_odds": of_odds}
            for factor, (of_distance, of_odds) in zip(distance, row, strict=True)
        ]
        for row in shares.tolist()
    ]


def _interactions(found: _Reasons, batch: Batch, bundle: Bundle) -> list[list[Record]]:
    """For each usable image the pairs of live latents, by what they add to its squared distance."""
    matrices = attribution.interactions(batch.images.latents, batch.context, bundle.population)
    matrices *= found.scale[:, None, None]
    names = [latent.name for latent in bundle.manifest.latents]
    pairs = list(combinations_with_replacement(bundle.population.live_dims.tolist(), 2))
    return [
        # The matrix holds each pair of two twice.
        [{"latents": (names[j], names[k]), "value": matrix[j, k] * (1 if j == k else 2)} for j, k in pairs]
        for matrix in matrices
    ]


def _scores(batch: Batch) -> Scores:
    assert batch.scores is not None, "scores are of images"
    return batch.scores


def _familiarity(batch: Batch) -> list[Record]:
    """For each usable image whether it looks foreign, and why; nothing where nobody asked."""
    check = batch.images.check
    if check is None:
        return [{} for _ in batch.images.latents]
    return [
        {"is_foreign": True, "reason": check.reason(row)} if foreign else {"is_foreign": False}
        for row, foreign in enumerate((check.foreignness > 1).tolist())
    ]


def _detail(error: MisfitError) -> ErrorDetail:
    return ErrorDetail(code=error.code, message=error.message, hint=error.hint)
