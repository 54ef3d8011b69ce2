"""The fields of an item beside its scores: whether the image is foreign, and why it was scored as it was.

Arrays over all images are computed at once, the records of some images only when the answer asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.options import ExplainOptions, ScoreOptions, maps_of_image
from service.bundle.store import Bundle
from service.core.explain import attribution, minimal_sets, reasons
from service.core.explain.attribution import Attributions, Pairs
from service.core.types import BoolArray, Float64Array, IndexArray
from service.pipeline import record_sizes
from service.pipeline.batch import Batch
from service.pipeline.chunked_response import EARLY_BYTES
from service.pipeline.explain.map_plan import MapPlan, plan_maps

# Where more of a score than this is no latent's, the content is to blame.
BY_ERROR = 0.5
TERMS = ("shapley", "shapley_odds", "conditional_z", "marginal_z")

Record = dict[str, Any]  # fields of one of `service.api.schemas`, which checks them
Details = Callable[[slice], list[Record]]  # the fields beside the scores, of some of the usable images


@dataclass(frozen=True)
class ExplanationWithoutMaps:
    """An explanation whose heat maps are still to be drawn.

    details             the fields beside the scores, of some of the usable images
    record_bytes        of JSON, of one item
    mapped        (m,)  rows of the usable images that get heat maps, the most outlying first
    maps                of these images
    reasons       (m,)  sentences
    """

    details: Details
    record_bytes: int
    mapped: IndexArray
    maps: MapPlan
    reasons: Sequence[str]


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


def describe_scores(batch: Batch, options: ScoreOptions, bundle: Bundle) -> Details:
    """Return what /score says of the images beside their scores."""
    if options.attributions == "none":
        return partial(_describe_check, batch, bundle)
    explanations = _explain(batch, bundle)
    limit = bundle.manifest.latent_dim if options.attributions == "all" else options.top

    def details(rows: slice) -> list[Record]:
        records = _describe_check(batch, bundle, rows)
        attributions = _build_attributions(explanations, limit, batch, bundle, rows)
        for record, terms, reason in zip(records, attributions, explanations.reasons[rows], strict=True):
            record["attributions"] = terms
            record.setdefault("reason", reason)
        return records

    return details


def select_mapped_rows(batch: Batch, options: ExplainOptions, limit: int) -> NDArray[np.intp]:
    """Return the rows of the usable images that get heat maps, the most outlying first and at most `limit`."""
    scores = batch.require_scores()
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

    maps = plan_maps(
        explanations.order[mapped],
        explanations.repaired[mapped],
        np.sign(explanations.terms.marginal_z[mapped]),
        attribution.gradients(batch.images.latents[mapped], batch.context, bundle.population),
        latents,
        maps_of_image(options, bundle),
    )
    mapped_reasons = [_get_reason(batch, explanations, row, bundle) for row in mapped.tolist()]
    drawn = mapped, maps, mapped_reasons
    record_bytes = record_sizes.explained_item(options, bundle)
    if record_bytes * len(explanations.reasons) <= EARLY_BYTES:
        # Make the records now, while the networks work on the heat maps.
        early_records = details(slice(0, len(explanations.reasons)))
        return ExplanationWithoutMaps(
            lambda rows: [record.copy() for record in early_records[rows]], record_bytes, *drawn
        )
    return ExplanationWithoutMaps(details, record_bytes, *drawn)


def _explain(batch: Batch, bundle: Bundle) -> _Explanations:
    latents, context, population = batch.images.latents, batch.context, bundle.population
    scores = batch.require_scores()
    terms = attribution.attribute(latents, context, population)
    # Only `leave_one_out` measures from other moments than the context's: in the same proportions (Sherman-Morrison).
    own_distances = terms.shapley.sum(axis=1)
    scale = np.divide(
        scores.mahalanobis_squared, own_distances, out=np.ones_like(own_distances), where=own_distances > 0
    )
    terms = replace(terms, shapley=terms.shapley * scale[:, None])
    repaired, sentences = _find_reasons(batch, np.arange(len(latents)), bundle)
    return _Explanations(terms, attribution.order(terms, context), repaired, scale, sentences)


def _get_reason(batch: Batch, explanations: _Explanations, row: int, bundle: Bundle) -> str:
    """Return why the usable image `row` was scored as it was."""
    (record,) = _describe_check(batch, bundle, slice(row, row + 1))
    return str(record.get("reason", explanations.reasons[row]))


def find_reasons(batch: Batch, rows: IndexArray, bundle: Bundle) -> list[str]:
    """Return why the usable images in `rows` (k,) were scored as they were, a sentence for each."""
    _, sentences = _find_reasons(batch, rows, bundle)
    checked = [_describe_check(batch, bundle, slice(row, row + 1))[0] for row in rows.tolist()]
    return [record.get("reason", sentence) for record, sentence in zip(checked, sentences, strict=True)]


def _find_reasons(batch: Batch, rows: IndexArray, bundle: Bundle) -> tuple[BoolArray, list[str]]:
    """Return the minimal sets (k, L) of the usable images in `rows` (k,), and what they say; foreign ones alike."""
    latents, context, population = batch.images.latents[rows], batch.context, bundle.population
    stands_out = batch.stands_out[rows]
    # What does not stand out needs no repair.
    repaired = np.zeros((len(rows), latents.shape[2]), dtype=bool)
    deviations = np.zeros(repaired.shape)
    repaired[stands_out] = minimal_sets.minimal_sets(latents[stands_out], context, population)
    deviations[stands_out] = minimal_sets.repair_z(latents[stands_out], repaired[stands_out], context, population)
    scores = batch.require_scores()
    by_error = scores.by_error[rows] > BY_ERROR * np.maximum(scores.outlier_score[rows], 0)
    said = reasons.sentences(
        repaired, deviations, stands_out, bundle.manifest.latents, context, _name_nearest(batch, rows), by_error
    )
    return repaired, said


def _name_nearest(batch: Batch, rows: IndexArray) -> dict[int, list[str]]:
    """Return the ids of the images that are most like each flagged one of `rows` (k,), by its place among these.

    Only where a batch is its own context: else those nearest may be others that do not belong to the context.
    """
    nearest, stands_out = batch.nearest, batch.stands_out
    if nearest is None or batch.context.source != "batch":
        return {}
    positions = nearest.positions[rows, : reasons.NEAREST_NAMED].tolist()
    return {place: [nearest.ids[at] for at in positions[place]] for place in np.flatnonzero(stands_out[rows]).tolist()}


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
