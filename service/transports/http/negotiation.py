"""Content negotiation: the form of an answer that a client accepts (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from service.api.endpoints import Endpoint, Form
from service.errors import NotAcceptable, quoted

JSON, PNG, ZIP, CSV = "application/json", "image/png", "application/zip", "text/csv"
MEDIA_TYPES: dict[Form, str] = {"sheet": PNG, "files": ZIP, "table": CSV}
WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


class _Range(NamedTuple):
    """A media range of an Accept header: `image/png`, `image/*` or `*/*`, and its weight from 0 to 1."""

    type: str
    subtype: str
    weight: float

    def matches(self, media_type: str) -> bool:
        type_, subtype = media_type.split("/")
        return self.type in ("*", type_) and self.subtype in ("*", subtype)

    @property
    def precision(self) -> int:
        return (self.type != "*") + (self.subtype != "*")


def list_media_types(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the media types of an endpoint's answers, JSON first."""
    return JSON, *(MEDIA_TYPES[form] for form in endpoint.forms)


def select_media_type(endpoint: Endpoint, accept: str) -> str:
    """Return the media type of the answer to a request with the header Accept, "" where it has none.

    Of several that weigh the same, the one that is named most precisely wins, then the one that is named first.
    Raises NotAcceptable where the client accepts none of them.
    """
    offered = list_media_types(endpoint)
    ranges = [_parse_range(text) for text in accept.split(",") if text.strip()]
    if not ranges:
        return JSON
    candidates = []
    for media_type in offered:
        matching = [(each.precision, -place, each) for place, each in enumerate(ranges) if each.matches(media_type)]
        if matching and (best := max(matching))[2].weight > 0:
            candidates.append((best[2].weight, *best[:2], media_type))
    if not candidates:
        raise NotAcceptable(
            f"Accept is {quoted(accept)}; /{endpoint.name} answers with {_list(offered)}.",
            "Accept one of them, or leave the header out for JSON.",
        )
    return max(candidates, key=lambda each: each[:3])[3]


def _parse_range(text: str) -> _Range:
    """Return a media range. Its parameters but for the weight are left out; a weight that is none counts as 1."""
    media_range, *parameters = (part.strip().lower() for part in text.split(";"))
    type_, _, subtype = ("*/*" if media_range == "*" else media_range).partition("/")  # as Java wrote it
    weights = [value.strip() for name, _, value in (each.partition("=") for each in parameters) if name.strip() == "q"]
    weight = float(weights[0]) if weights and WEIGHT.fullmatch(weights[0]) else 1.0
    return _Range(type_, subtype, weight)


def _list(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
