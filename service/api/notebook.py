"""What answers can do in a notebook: rank their items, become a data frame, show themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas

    from service.api.schemas import ScoredItem

# Items and pictures that an answer shows of itself.
SHOWN, SHOWN_PICTURES = 20, 50
COLUMNS = (
    "index", "id", "status", "rank", "is_outlier", "outlier_probability", "outlier_score", "mahalanobis_squared",
    "is_foreign", "reason", "minimal_set",
)  # fmt: skip


class _HasItems(Protocol):
    @property
    def items(self) -> Sequence[ScoredItem]: ...

    @property
    def ranked(self) -> list[ScoredItem]: ...


class _HasPictures(Protocol):
    @property
    def pictures(self) -> Sequence[Any]: ...


class ScoredItems:
    """Methods of an answer with scored items, for notebooks."""

    @property
    def ranked(self: _HasItems) -> list[ScoredItem]:
        """Return the items that have scores, the most outlying first."""
        return sorted((item for item in self.items if item.rank is not None), key=lambda item: item.rank or 0)

    @property
    def flagged(self: _HasItems) -> list[ScoredItem]:
        """Return the flagged items, the most outlying first."""
        return [item for item in self.ranked if item.is_outlier]

    def to_pandas(self: _HasItems) -> pandas.DataFrame:
        """Return a data frame with a row for each item, in the order of the request.

        Attributions have a column "shapley LATENT" and a column "conditional_z LATENT" for each latent that came.
        Raises ModuleNotFoundError without pandas.
        """
        return _frame([_to_record(item) for item in self.items])

    def _repr_html_(self: _HasItems) -> str:
        rows = [
            (
                item.rank,
                "" if not item.is_outlier else "foreign" if item.is_foreign else "outlier",
                f"{item.outlier_probability:.3f}",
                f"{item.outlier_score:.4g}",
                item.id,
                item.reason or "",
            )
            for item in self.ranked[:SHOWN]
        ]
        flagged = sum(bool(item.is_outlier) for item in self.items)
        failed = sum(item.status == "error" for item in self.items)
        caption = f"{len(self.items):,} images, {flagged:,} flagged" + (f", {failed:,} unreadable" if failed else "")
        return _table(("rank", "flag", "probability", "score", "image", "reason"), rows, caption)


class ShownPictures:
    """Methods of an answer with pictures, for notebooks."""

    def _repr_html_(self: _HasPictures) -> str:
        shown = [picture for picture in self.pictures[:SHOWN_PICTURES] if picture.image is not None]
        figures = "".join(
            '<figure style="display:inline-block;margin:4px;text-align:center">'
            f'<img src="data:image/png;base64,{picture.image}" alt="{escape(picture.id)}">'
            f"<figcaption>{escape(picture.id)}</figcaption></figure>"
            for picture in shown
        )
        return f"<div>{figures}<p>{len(self.pictures):,} pictures</p></div>"


def _frame(records: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('A data frame takes pandas: pip install "misfit[tables]"', name="pandas") from error
    return pandas.DataFrame.from_records(records)


def _to_record(item: ScoredItem) -> dict[str, Any]:
    record = {name: getattr(item, name) for name in COLUMNS}
    record["nearest"] = None if item.nearest is None else [each.id for each in item.nearest]
    record["error"] = None if item.error is None else str(item.error)
    for each in item.attributions or ():
        record[f"shapley {each.latent}"] = each.shapley
        record[f"conditional_z {each.latent}"] = each.conditional_z
    return record


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
