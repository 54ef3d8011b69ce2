"""Reports: a table of scores, with thumbnails and pictures, as one HTML file."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from service.api.score_records import ScoreRow, ScoresTable, TableInfo
from service.errors import InvalidInput, readable
from service.images.decode import Content
from service.report.document import build_document
from service.report.json_cells import read_attributions, read_nearest
from service.report.thumbnails import describe_tiles, draw_thumbnails, encode_picture

# Images that a report lists: of more, the most outlying ones.
MOST_IMAGES = 20_000
# Distances that the plots are drawn from: of more, an even sample.
MOST_DISTANCES = 20_000
# Warnings that are shown, and characters of a reason or error.
MOST_WARNINGS, LONGEST_TEXT = 50, 500
# Of one image.
MOST_LATENTS, MOST_NEAREST = 24, 10
DIGITS = 6  # significant digits of numbers
# Bytes of all pictures together: those of images after the budget is spent are left out.
PICTURE_BUDGET = 2_000_000


@dataclass(frozen=True)
class Pictures:
    """The pictures of one image in a report beside its thumbnail, as PNG files.

    heat_maps       by latent
    counterfactual  what it would look like if it belonged
    caption         of the counterfactual: what was changed
    """

    image: bytes | None = None
    heat_maps: Mapping[str, bytes] = field(default_factory=dict)
    counterfactual: bytes | None = None
    caption: str = "as it would look if it belonged"


@dataclass(frozen=True)
class Group:
    """The drift and the reference law of one group in a report: see `web/summary.js`."""

    name: str
    images: int
    flagged: int
    foreign: int
    unreadable: int
    contamination: float | None
    reliability: str | None
    warnings: list[str]
    drift: float | None


def write_report(
    path: Path,
    table: ScoresTable,
    *,
    title: str = "misfit report",
    read_image: Callable[[ScoreRow], Content | None] | None = None,
    pictures: Mapping[int, Pictures] | None = None,
    live_latents: int | None = None,
    drift: Mapping[str, float] | None = None,
) -> None:
    """Write a report of `table` to `path`, whole or not at all.

    read_image    returns an image file's bytes, or pixels (H, W) or (H, W, C); None where it has none. Where it raises
                  InvalidInput or OSError the image gets no thumbnail
    pictures      by position of the image among the table's rows
    live_latents  of the model: how many degrees of freedom the reference law has. Without it the plots show no law
    drift         by group: the mean squared distance to the population over the expected one

    Folders that are missing are made. Raises InvalidInput where the table has no rows or cannot be read, and OSError.
    """
    if not table.rows:
        raise InvalidInput("The table has no rows, expected one for each image.", "Score images first.")
    names = list(dict.fromkeys(row.group for row in table.rows))
    order = sorted(range(len(table.rows)), key=lambda position: _order(table.rows[position]))[:MOST_IMAGES]
    listed = [table.rows[position] for position in order]
    told = _told_by_probability(table.rows)
    groups = _summarise(names, table, drift or {}, told)
    thumbnails = draw_thumbnails(len(listed), None if read_image is None else lambda place: read_image(listed[place]))
    shown, has_all = _encode_pictures(order, pictures or {})
    warnings = [
        f"{group.name}: {warning}" if len(groups) > 1 else warning for group in groups for warning in group.warnings
    ]
    if len(warnings) > MOST_WARNINGS:
        warnings = [*warnings[:MOST_WARNINGS], f"{len(warnings) - MOST_WARNINGS} more warnings are in the table."]
    if len(listed) < len(table.rows):
        warnings.append(
            f"The {len(listed):,} most outlying of {len(table.rows):,} images are listed; the figures count all."
        )
    if not has_all:
        warnings.append("Heat maps and counterfactuals of the most outlying images are shown: the report is full.")
    data = {
        "title": readable(title),
        "facts": _describe(table.info),
        "warnings": [readable(warning)[:LONGEST_TEXT] for warning in warnings],
        "groups": [asdict(group) for group in groups],
        "columns": _columns(listed, {name: number for number, name in enumerate(names)}, told),
        "sample": None if len(listed) == len(table.rows) else _sample(table.rows, names),
        "live_latents": live_latents or None,
        "thumbnails": describe_tiles(thumbnails),
        "pictures": shown,
    }
    _write_whole(path, build_document(data, thumbnails.sheets))


def _order(row: ScoreRow) -> tuple[bool, bool, float, float, int]:
    """Return what sorts the most outlying first, and unreadable images last. A rank counts within its group only."""
    probability, score = row.outlier_probability, row.outlier_score
    return (
        row.rank is None,
        not row.is_foreign,
        -(probability if probability is not None else 0),
        -(score if score is not None else 0),
        row.rank or 0,
    )


def _told_by_probability(rows: Sequence[ScoreRow]) -> set[str]:
    """Return the groups whose outlier probabilities say something of their images.

    Where a batch cannot tell which images are outliers, all have the same, but for foreign ones: the share of outliers
    that any batch may have.
    """
    probabilities: dict[str, list[float | None]] = {row.group: [] for row in rows}
    for row in rows:
        if row.rank is not None and not row.is_foreign:
            probabilities[row.group].append(row.outlier_probability)
    return {group for group, known in probabilities.items() if len(known) < 2 or len(set(known)) > 1}


def _summarise(
    names: Sequence[str], table: ScoresTable, drift: Mapping[str, float], told: Collection[str]
) -> list[Group]:
    counts = {name: dict.fromkeys(("images", "flagged", "foreign", "unreadable"), 0) for name in names}
    for row in table.rows:
        count = counts[row.group]
        count["images"] += 1
        count["flagged"] += bool(row.is_outlier)
        count["foreign"] += bool(row.is_foreign)
        count["unreadable"] += bool(row.error)
    said = table.info.groups if table.info else {}
    return [
        Group(
            name=readable(name),
            **counts[name],
            contamination=_finite(summary.contamination) if (summary := said.get(name)) and name in told else None,
            reliability=summary.reliability if summary else None,
            warnings=list(summary.warnings) if summary else [],
            drift=_finite(drift.get(name)),
        )
        for name in names
    ]


def _columns(rows: Sequence[ScoreRow], numbers: Mapping[str, int], told: Collection[str]) -> dict[str, list[object]]:
    attributions = [_largest(read_attributions(row)) for row in rows]
    return {
        "group": [numbers[row.group] for row in rows],
        "id": [readable(row.id) for row in rows],
        "path": [readable(row.path) for row in rows],
        "rank": [row.rank for row in rows],
        "outlier_score": [_finite(row.outlier_score) for row in rows],
        "outlier_probability": [
            _finite(row.outlier_probability) if row.is_foreign or row.group in told else None for row in rows
        ],
        "is_outlier": [bool(row.is_outlier) for row in rows],
        "is_foreign": [bool(row.is_foreign) for row in rows],
        "mahalanobis_squared": [_finite(row.mahalanobis_squared) for row in rows],
        "reason": [readable(row.reason)[:LONGEST_TEXT] for row in rows],
        "error": [readable(row.error)[:LONGEST_TEXT] for row in rows],
        "nearest": [
            [{"id": each["id"], "distance": _finite(each["distance"])} for each in read_nearest(row)[:MOST_NEAREST]]
            for row in rows
        ],
        "attributions": [shares for shares, _ in attributions],
        "attributions_left_out": [left_out for _, left_out in attributions],
    }


def _largest(shares: Mapping[str, float]) -> tuple[dict[str, float | None], int]:
    """Return the largest shares of a score, at most MOST_LATENTS, and how many more there are."""
    finite = {latent: share for latent, share in shares.items() if math.isfinite(share)}
    largest = sorted(finite, key=lambda latent: -abs(finite[latent]))[:MOST_LATENTS]
    return {latent: _finite(finite[latent]) for latent in largest}, len(finite) - len(largest)


def _sample(rows: Sequence[ScoreRow], names: Sequence[str]) -> dict[str, object]:
    """Return an even sample, by distance, of the distances of all images."""
    numbers = {name: number for number, name in enumerate(names)}
    scored = [
        (math.sqrt(squared), bool(row.is_outlier), numbers[row.group])
        for row in rows
        if (squared := _finite(row.mahalanobis_squared)) is not None and squared >= 0
    ]
    every = max(1, math.ceil(len(scored) / MOST_DISTANCES))
    sample = sorted(scored, reverse=True)[::every]
    return {
        "distance": [_finite(distance) for distance, _, _ in sample],
        "flagged": [flagged for _, flagged, _ in sample],
        "group": [number for _, _, number in sample],
        "every": every,
    }


def _encode_pictures(
    order: Sequence[int], pictures: Mapping[int, Pictures]
) -> tuple[dict[int, dict[str, object]], bool]:
    """Return addresses of pictures by place in `order`, as far as the budget reaches, and whether it reached.

    order  positions of the listed images among the table's rows, the most outlying first
    """
    shown: dict[int, dict[str, object]] = {}
    left = PICTURE_BUDGET
    for place, position in enumerate(order):
        own = pictures.get(position)
        if own is None:
            continue
        image = _address(own.image) if own.image else None
        maps = [{"latent": latent, "image": _address(png)} for latent, png in own.heat_maps.items()]
        changed = {"image": _address(own.counterfactual), "caption": own.caption} if own.counterfactual else None
        left -= len(image or "") + sum(len(each["image"]) for each in maps) + len(changed["image"] if changed else "")
        if left < 0:
            return shown, False
        shown[place] = {"image": image, "heat_maps": maps, "counterfactual": changed}
    return shown, True


def _address(png: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(encode_picture(png)).decode()}"


def _describe(info: TableInfo | None) -> list[tuple[str, str]]:
    if info is None:
        return []
    options = ", ".join(f"{name}={value}" for name, value in info.options.items() if value is not None)
    facts = [("Model", info.bundle), ("Bundle", info.bundle_id[:12]), ("Options", options)]
    return [(name, readable(value)[:LONGEST_TEXT]) for name, value in facts if value]


def _finite(value: object) -> float | None:
    """Return a number with DIGITS significant digits; None for what is no finite number, which JSON cannot hold."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _write_whole(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error  # the user knows no other name
    finally:
        with suppress(OSError):
            scratch.unlink()


def select_outlying(rows: Sequence[ScoreRow], count: int) -> list[int]:
    """Return the positions of the `count` most outlying flagged images: those whose pictures a report shows first."""
    flagged = (position for position, row in enumerate(rows) if row.is_outlier)
    return sorted(flagged, key=lambda position: _order(rows[position]))[:count]
