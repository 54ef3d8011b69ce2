"""The parts of a table of scores that a report reads: `service.offline.score_records` keeps these protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service.errors import InvalidInput, quoted


class Row(Protocol):
    """One image. An image that could not be scored has an error, and None in place of scores.

    nearest       JSON: a list of {"id", "distance"}, the nearest first
    attributions  JSON: {latent: its share of the score}
    """

    @property
    def group(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def outlier_score(self) -> float | None: ...
    @property
    def outlier_probability(self) -> float | None: ...
    @property
    def is_outlier(self) -> bool | None: ...
    @property
    def is_foreign(self) -> bool | None: ...
    @property
    def mahalanobis_squared(self) -> float | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def nearest(self) -> str: ...
    @property
    def attributions(self) -> str: ...


class Summary(Protocol):
    """The summary of images that were compared with each other."""

    @property
    def contamination(self) -> float | None: ...
    @property
    def reliability(self) -> str: ...
    @property
    def warnings(self) -> Sequence[str]: ...


class Info(Protocol):
    """The metadata of the whole table."""

    @property
    def bundle_id(self) -> str: ...
    @property
    def bundle(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def groups(self) -> Mapping[str, Summary]: ...


class Table(Protocol):
    """A table of scores; `info` is None where the file held none (CSV)."""

    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def info(self) -> Info | None: ...


def read_attributions(row: Row) -> dict[str, float]:
    """Return the share of each latent in the score. Raises InvalidInput for another text than the JSON of that."""
    shares = _parse(row, "attributions", row.attributions, {})
    if not isinstance(shares, dict) or not all(map(_is_number, shares.values())):
        raise _refuse(row, "attributions", row.attributions, 'an object such as {"scale": 1.5}')
    return shares


def read_nearest(row: Row) -> list[dict[str, object]]:
    """Return the nearest images, each as {"id", "distance"}. Raises InvalidInput for another text than that JSON."""
    nearest = _parse(row, "nearest", row.nearest, [])
    if not isinstance(nearest, list) or not all(
        isinstance(each, dict) and isinstance(each.get("id"), str) and _is_number(each.get("distance"))
        for each in nearest
    ):
        raise _refuse(row, "nearest", row.nearest, 'a list such as [{"id": "a.png", "distance": 0.5}]')
    return [{"id": each["id"], "distance": each["distance"]} for each in nearest]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse(row: Row, column: str, text: str, default: object) -> Any:
    try:
        return json.loads(text) if text else default
    except ValueError:
        raise _refuse(row, column, text, "JSON") from None


def _refuse(row: Row, column: str, text: str, expected: str) -> InvalidInput:
    return InvalidInput(
        f"{column} of the image {quoted(row.id)} is {quoted(text)}, expected {expected}.", "Write it with misfit score."
    )
