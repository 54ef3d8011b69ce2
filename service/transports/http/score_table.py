"""The answer of /score or /explain as a table: text/csv (RFC 4180) with a line for each image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import chain

from service.api.schemas import ScoredItem, ScoreResponse
from service.pipeline.chunked_response import ChunkedResponse

FIELDS = (
    "index",
    "id",
    "status",
    "rank",
    "is_outlier",
    "outlier_probability",
    "outlier_score",
    "mahalanobis_squared",
    "is_foreign",
    "reason",
)
SHARES = ("shapley", "conditional_z")
SEPARATOR = "; "


@dataclass(frozen=True)
class ScoreTable:
    """The table of a response whose model has these latents. Its lines are made while they are sent.

    Heat maps, factors, interactions, groups and the context's warnings are left to JSON. `reliability` is the same in
    every line, so that whoever keeps the table keeps it as well.
    """

    response: ChunkedResponse[ScoreResponse]
    latents: Sequence[str]

    def pieces(self) -> Iterator[bytes]:
        """Yield the lines, the names of the columns first. There are columns of latents where attributions are."""
        chunks = self._iterate_items()
        first: list[ScoredItem] = []
        while not any(item.status == "ok" for item in first):  # at least one is, or there is no answer
            first += next(chunks)
        latents = self.latents if any(item.attributions is not None for item in first) else ()
        shares = [f"{share} {latent}" for latent in latents for share in SHARES]
        names = (*FIELDS, "minimal_set", "nearest", "error", "reliability", *shares)
        yield _lines([names])
        for items in chain([first], chunks):
            yield _lines([self._cells(item, latents) for item in items])

    def _iterate_items(self) -> Iterator[list[ScoredItem]]:
        for records in self.response.records():
            yield [item for item in records if isinstance(item, ScoredItem)]

    def _cells(self, item: ScoredItem, latents: Sequence[str]) -> list[object]:
        attributions = {each.latent: each for each in item.attributions or ()}
        return [
            *(getattr(item, name) for name in FIELDS),
            SEPARATOR.join(item.minimal_set or ()),
            SEPARATOR.join(neighbour.id for neighbour in item.nearest or ()),
            str(item.error) if item.error else None,
            self.response.head.context.reliability,
            *(getattr(attributions.get(latent), share, None) for latent in latents for share in SHARES),
        ]


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text).writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue().encode()


def _cell(value: object) -> object:
    """Return a value as the table shows it: true and false as JSON has them, every digit of a number, None as empty."""
    return str(value).lower() if isinstance(value, bool) else value
