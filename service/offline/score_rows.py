"""Answers of /score and /explain to rows of the scores table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from service.api.schemas import ScoredItem, ScoreResponse
from service.api.score_records import GroupSummary, ScoreRow
from service.core.detect.estimators.registry import ESTIMATORS, MERGED, Estimator
from service.errors import readable
from service.offline.inputs.source_table import Source


def build_rows(response: ScoreResponse, sources: Sequence[Source], group: str) -> list[ScoreRow]:
    """Return a row for each item of the answer for `sources`, in order.

    Where every page of a file is an image (pages=all), there are more items than sources.
    """
    if len(response.items) != len(sources):
        by_id = {source.id: source for source in sources}
        sources = [by_id.get(item.id) or _page_of(item.id, by_id) for item in response.items]
    return RowBuilder(response, sources, group).build(response.items)


class RowBuilder:
    """Makes the rows of one group, from the items of an answer in parts. `sources` has one for each item."""

    def __init__(self, response: ScoreResponse, sources: Sequence[Source], group: str) -> None:
        name = response.context.estimator
        estimator: Estimator = MERGED if name == "moments" else ESTIMATORS[name]
        self._shares_odds = estimator.ranks_by_odds
        self._sources, self._group = sources, group

    def build(self, items: Sequence[Any]) -> list[ScoreRow]:
        """Return the rows of some items, ScoredItem."""
        return [self._build_row(item) for item in items]

    def _build_row(self, item: ScoredItem) -> ScoreRow:
        source = self._sources[item.index]
        nearest = [{"id": self._sources[each.index].id, "distance": each.distance} for each in item.nearest or ()]
        shares = {
            each.latent: each.shapley_odds if self._shares_odds else each.shapley for each in item.attributions or ()
        }
        return ScoreRow(
            group=self._group,
            id=source.id,
            path=readable(source.path),
            rank=item.rank,
            outlier_score=item.outlier_score,
            outlier_probability=item.outlier_probability,
            is_outlier=item.is_outlier,
            is_foreign=item.is_foreign,
            mahalanobis_squared=item.mahalanobis_squared,
            reason=item.reason or "",
            error=str(item.error) if item.error else "",
            nearest=json.dumps(nearest, ensure_ascii=False),
            attributions=json.dumps(shares, ensure_ascii=False),
        )


def build_failed_rows(sources: Sequence[Source], group: str, message: str) -> list[ScoreRow]:
    """Return the rows of a group none of whose images was scored."""
    return [
        ScoreRow(group, source.id, readable(source.path), None, None, None, None, None, None, error=message)
        for source in sources
    ]


def summarise(response: ScoreResponse) -> GroupSummary:
    """Return what is said of a group."""
    scored = [item for item in response.items if item.status == "ok"]
    flagged = sum(bool(item.is_outlier) for item in scored)
    return summarise_items(response, len(scored), len(response.items) - len(scored), flagged)


def summarise_items(response: ScoreResponse, n: int, failed: int, flagged: int) -> GroupSummary:
    """Return what is said of a group of so many images, whatever items the response has."""
    context = response.context
    return GroupSummary(
        n, failed, flagged, context.contamination, context.reliability, context.estimator, tuple(context.warnings)
    )


def _page_of(id_: str, by_id: dict[str, Source]) -> Source:
    """Return the source of one page of a file: its id is NAME[PAGE]."""
    file, _, page = id_.rpartition("[")
    source = by_id[file]
    return Source(id_, f"{source.path}[{page}", source.read, source.group)
