"""The JSON cells of a table of scores, read and checked: attributions and nearest images."""

from __future__ import annotations

import json
from typing import Any

from service.api.score_records import ScoreRow
from service.errors import InvalidInput, quoted


def read_attributions(row: ScoreRow) -> dict[str, float]:
    """Return the share of each latent in the score. Raises InvalidInput for another text than the JSON of that."""
    shares = _parse(row, "attributions", row.attributions, {})
    if not isinstance(shares, dict) or not all(map(_is_number, shares.values())):
        raise _refuse(row, "attributions", row.attributions, 'an object such as {"scale": 1.5}')
    return shares


def read_nearest(row: ScoreRow) -> list[dict[str, object]]:
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


def _parse(row: ScoreRow, column: str, text: str, default: object) -> Any:
    try:
        return json.loads(text) if text else default
    except ValueError:
        raise _refuse(row, column, text, "JSON") from None


def _refuse(row: ScoreRow, column: str, text: str, expected: str) -> InvalidInput:
    return InvalidInput(
        f"{column} of the image {quoted(row.id)} is {quoted(text)}, expected {expected}.", "Write it with misfit score."
    )
