"""What a table of scores holds: rows, and what is said of groups and of the whole table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from service.errors import InvalidInput


@dataclass(frozen=True)
class ScoreRow:
    """One image. An image that could not be scored has an error, and None in place of scores.

    group         the request batch that it was compared within; "" where there is one
    id            unique within its group as far as the names of the input are
    path          the file: absolute, or a URI; `archive.zip!/member` within an archive, `array.npy[3]` within an array
    rank          1 is the most outlying image of its group
    reason        one sentence; empty where none was asked for
    error         what is wrong with the image; empty where it was scored
    nearest       JSON: a list of {"id", "distance"}, the nearest first
    attributions  JSON: {latent: its share of outlier_score, or of mahalanobis_squared where that ranks}
    """

    group: str
    id: str
    path: str
    rank: int | None
    outlier_score: float | None
    outlier_probability: float | None
    is_outlier: bool | None
    is_foreign: bool | None
    mahalanobis_squared: float | None
    reason: str = ""
    error: str = ""
    nearest: str = "[]"
    attributions: str = "{}"


@dataclass(frozen=True)
class GroupSummary:
    """The summary of one group.

    n              images that were scored
    failed         images that could not be
    flagged        images with is_outlier
    contamination  estimated share of outliers; None where nothing estimates it
    """

    n: int
    failed: int
    flagged: int
    contamination: float | None
    reliability: str
    estimator: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableInfo:
    """The metadata of the whole table.

    bundle   the name of the bundle, or the directory that it was loaded from
    options  the options that were set, by name
    groups   by name, in the order of the rows
    """

    bundle_id: str
    bundle: str
    options: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, GroupSummary] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `to_json` wrote. Raises InvalidInput for anything else."""
        try:
            content = json.loads(text)
            groups = {
                name: GroupSummary(**{**summary, "warnings": tuple(summary["warnings"])})
                for name, summary in content["groups"].items()
            }
            return cls(content["bundle_id"], content["bundle"], content["options"], groups)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(
                f"The table's metadata cannot be read: {error}.", "Write it with misfit score."
            ) from None


COLUMNS = tuple(column.name for column in fields(ScoreRow))
TEXTS = ("group", "id", "path", "reason", "error", "nearest", "attributions")
FLAGS = ("is_outlier", "is_foreign")


@dataclass(frozen=True)
class ScoresTable:
    """A whole table in memory. `info` is None where the file holds none (CSV)."""

    rows: list[ScoreRow]
    info: TableInfo | None = None
