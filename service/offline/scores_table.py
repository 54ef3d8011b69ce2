"""The scores table: one row for each image, as Parquet, CSV or JSON lines. `misfit score` writes it, reports read it.

What is said of the whole table is one JSON object. Parquet holds it in the file's metadata under the key "misfit", JSON
lines in a first line {"misfit": {...}}, CSV not at all.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from service.errors import InvalidInput

METADATA_KEY = "misfit"
SUFFIXES = (".parquet", ".csv", ".jsonl")
# Rows of one row group of Parquet: the memory that writing takes, and what a reader may skip.
ROW_GROUP = 20_000


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
    """What is said of one group.

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
    """What is said of the whole table.

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


class _Format(Protocol):
    """Writes rows to one file, and what is said of all of them at its end."""

    def write(self, rows: Sequence[ScoreRow]) -> None: ...

    def finish(self, info: TableInfo) -> None: ...

    def close(self) -> None: ...


class ScoresWriter:
    """Writes a table row by row. The file appears under its name when `finish` has been called, or never.

    Raises InvalidInput for a suffix that is none of SUFFIXES, or for Parquet without pyarrow, and OSError.
    """

    def __init__(self, path: Path) -> None:
        check_format(path)
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._format = _FORMATS[path.suffix.lower()](self._scratch)

    def write(self, rows: Sequence[ScoreRow]) -> None:
        self._format.write(rows)

    def finish(self, info: TableInfo) -> None:
        """Write what is said of all rows, and give the file its name."""
        self._format.finish(info)
        self._format.close()
        os.replace(self._scratch, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, ValueError):
            self._format.close()
        self._scratch.unlink(missing_ok=True)


def check_format(path: Path) -> None:
    """Raise InvalidInput where no table can be written to, or read from, a file of that name."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(f"{path} ends in {suffix or 'nothing'}, expected one of {', '.join(SUFFIXES)}.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise InvalidInput(
            f"{path} is Parquet, which takes pyarrow.", 'pip install "misfit[tables]", or name a .csv or a .jsonl.'
        )


def write_scores(path: Path, rows: Iterable[ScoreRow], info: TableInfo) -> None:
    """Write a whole table. Raises what `ScoresWriter` raises."""
    with ScoresWriter(path) as writer:
        writer.write(list(rows))
        writer.finish(info)


def read_scores(path: Path) -> ScoresTable:
    """Return the table in a file. Raises InvalidInput where it is none, and OSError."""
    check_format(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    with path.open(encoding="utf-8", newline="") as file:
        if suffix == ".csv":
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or ())
            return ScoresTable([_row_of_texts(record) for record in reader])
        try:
            head = json.loads(file.readline() or "null")
            if not isinstance(head, dict) or METADATA_KEY not in head:
                raise InvalidInput(f"{path} does not begin with a line of metadata.", "Write it with misfit score.")
            return ScoresTable(
                [_row_of(path, json.loads(line)) for line in file if line.strip()],
                TableInfo.from_json(json.dumps(head[METADATA_KEY])),
            )
        except ValueError as error:
            raise InvalidInput(f"{path} holds a line that is no JSON: {error}.") from None


class _JsonLines:
    """Rows go to a file of their own: the first line of the table is known last."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._rows: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115

    def write(self, rows: Sequence[ScoreRow]) -> None:
        self._rows.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)

    def finish(self, info: TableInfo) -> None:
        self._rows.flush()
        self._file.write(f'{{"{METADATA_KEY}": {info.to_json()}}}\n'.encode())
        self._rows.buffer.seek(0)  # type: ignore[attr-defined]  # of a text file
        shutil.copyfileobj(self._rows.buffer, self._file)  # type: ignore[attr-defined]

    def close(self) -> None:
        self._rows.close()
        self._file.close()


class _Csv:
    """True and false as JSON has them, every digit of a number, None as an empty cell."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def write(self, rows: Sequence[ScoreRow]) -> None:
        self._writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)

    def finish(self, info: TableInfo) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._schema = _arrow_schema()
        self._writer = parquet.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[ScoreRow]) -> None:
        import pyarrow as pa

        for start in range(0, len(rows), ROW_GROUP):
            part = rows[start : start + ROW_GROUP]
            columns = {name: [getattr(row, name) for row in part] for name in COLUMNS}
            self._writer.write_table(pa.table(columns, schema=self._schema))

    def finish(self, info: TableInfo) -> None:
        self._writer.add_key_value_metadata({METADATA_KEY: info.to_json()})

    def close(self) -> None:
        self._writer.close()


_FORMATS: Mapping[str, type[_JsonLines] | type[_Csv] | type[_Parquet]] = {
    ".jsonl": _JsonLines, ".csv": _Csv, ".parquet": _Parquet
}  # fmt: skip


def _arrow_schema() -> Any:
    import pyarrow as pa

    types = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(FLAGS, pa.bool_()), "rank": pa.int64()}
    return pa.schema([(name, types.get(name, pa.float64())) for name in COLUMNS])


def _read_parquet(path: Path) -> ScoresTable:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        table = file.read()
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{path} is no complete Parquet file: {error}.") from None
    _check_columns(path, table.column_names)
    metadata = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
    info = None if metadata is None else TableInfo.from_json(metadata)
    return ScoresTable(list(_rows_of(path, table.select(list(COLUMNS)).to_pylist())), info)


def _rows_of(path: Path, records: Iterable[Any]) -> Iterator[ScoreRow]:
    return (_row_of(path, record) for record in records)


def _row_of(path: Path, record: Any) -> ScoreRow:
    try:
        return ScoreRow(**record)
    except TypeError as error:
        raise InvalidInput(f"{path} is no table of scores: {error}.", "Write it with misfit score.") from None


def _check_columns(path: Path, names: Iterable[str]) -> None:
    if missing := [name for name in COLUMNS if name not in set(names)]:
        raise InvalidInput(
            f"{path} has no column {', '.join(missing)}: it is no table of scores.", "Write it with misfit score."
        )


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _row_of_texts(record: Mapping[str, str]) -> ScoreRow:
    """Return the row of a line of CSV. Raises InvalidInput for a cell of another type."""
    values: dict[str, Any] = {}
    for name in COLUMNS:
        text = record[name] or ""
        try:
            if name in TEXTS:
                values[name] = text
            elif not text:
                values[name] = None
            elif name in FLAGS:
                values[name] = {"true": True, "false": False}[text.lower()]
            else:
                values[name] = int(text) if name == "rank" else float(text)
        except (ValueError, KeyError):
            raise InvalidInput(f"The column {name} holds {text!r}.", "Write it with misfit score.") from None
    return ScoreRow(**values)
