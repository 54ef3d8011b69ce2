"""Answers of /score and /explain to rows of the scores table."""

from __future__ import annotations

import json
from collections.abc import Sequence

from service.api.schemas import LatentAttribution, ScoredItem, ScoreResponse
from service.core.detect.estimators import ESTIMATORS, MERGED, Estimator
from service.errors import readable
from service.offline.scores_table import GroupSummary, ScoreRow
from service.offline.sources import Source


def build_rows(response: ScoreResponse, sources: Sequence[Source], group: str) -> list[ScoreRow]:
    """Return a row for each item of the answer for `sources`, in order.

    Where every page of a file is an image (pages=all), there are more items than sources.
    """
    estimator = _estimator_of(response)
    if len(response.items) == len(sources):
        named = [(source.id, source.path) for source in sources]
    else:
        paths = {source.id: source.path for source in sources}
        named = [(item.id, _path_of_page(item.id, paths)) for item in response.items]
    ids = [id_ for id_, _ in named]
    return [
        _build_row(item, id_, readable(path), group, ids, estimator)
        for item, (id_, path) in zip(response.items, named, strict=True)
    ]


def build_failed_rows(sources: Sequence[Source], group: str, message: str) -> list[ScoreRow]:
    """Return the rows of a group none of whose images was scored."""
    return [
        ScoreRow(group, source.id, readable(source.path), None, None, None, None, None, None, error=message)
        for source in sources
    ]


def summarise(response: ScoreResponse) -> GroupSummary:
    """Return what is said of a group."""
    scored = [item for item in response.items if item.status == "ok"]
    return GroupSummary(
        n=len(scored),
        failed=len(response.items) - len(scored),
        flagged=sum(bool(item.is_outlier) for item in scored),
        contamination=response.context.contamination,
        reliability=response.context.reliability,
        estimator=response.context.estimator,
        warnings=tuple(response.context.warnings),
    )


def _estimator_of(response: ScoreResponse) -> Estimator:
    name = response.context.estimator
    return MERGED if name == "moments" else ESTIMATORS[name]


def _path_of_page(id_: str, paths: dict[str, str]) -> str:
    if id_ in paths:
        return paths[id_]
    file, _, page = id_.rpartition("[")
    return f"{paths.get(file, file)}[{page}"


def _build_row(item: ScoredItem, id_: str, path: str, group: str, ids: Sequence[str], estimator: Estimator) -> ScoreRow:
    nearest = [{"id": ids[each.index], "distance": each.distance} for each in item.nearest or ()]
    shares = {each.latent: _share_of(each, estimator) for each in item.attributions or ()}
    return ScoreRow(
        group=group,
        id=id_,
        path=path,
        rank=item.rank,
        outlier_score=item.outlier_score,
        outlier_probability=item.outlier_probability,
        is_outlier=item.is_outlier,
        is_foreign=item.is_foreign,
        mahalanobis_squared=item.mahalanobis_squared,
        reason=item.reason or "",
        error=f"{item.error.message} {item.error.hint}".strip() if item.error else "",
        nearest=json.dumps(nearest, ensure_ascii=False),
        attributions=json.dumps(shares, ensure_ascii=False),
    )


def _share_of(attribution: LatentAttribution, estimator: Estimator) -> float:
    return attribution.shapley_odds if estimator.ranks_by_odds else attribution.shapley
