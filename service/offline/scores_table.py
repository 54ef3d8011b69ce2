"""The scores table: one row for each image, as Parquet, CSV or JSON lines. `misfit score` writes it, reports read it.

What is said of the whole table is one JSON object. Parquet holds it in the file's metadata under the key "misfit", JSON
lines in a first line {"misfit": {...}}, CSV not at all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.api.score_records import COLUMNS, FLAGS, TEXTS, ScoreRow, ScoresTable, TableInfo
from service.errors import InvalidInput
from service.offline.atomic_files import about, name_scratch, publish
from service.offline.table_formats import FORMATS, METADATA_KEY

SUFFIXES = (".parquet", ".csv", ".jsonl")
# Rows that are read at a time.
ROWS_AT_ONCE = 5_000


class ScoresWriter:
    """Writes a table row by row. The file appears under its name when `finish` has been called, or never.

    Raises InvalidInput for a suffix that is none of SUFFIXES, or for Parquet without pyarrow, and OSError.
    """

    def __init__(self, path: Path) -> None:
        check_format(path)
        self._path, self._scratch = path, name_scratch(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._format = FORMATS[path.suffix.lower()](self._scratch)
        except OSError as error:
            raise about(error, self._scratch, path) from error

    def write(self, rows: Sequence[ScoreRow]) -> None:
        try:
            self._format.write(rows)
        except OSError as error:
            raise about(error, self._scratch, self._path) from error

    def finish(self, info: TableInfo) -> None:
        """Write what is said of all rows, and give the file its name."""
        try:
            self._format.finish(info)
            self._format.close()
            publish(self._scratch, self._path)
        except OSError as error:
            raise about(error, self._scratch, self._path) from error

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


def read_info(path: Path) -> TableInfo:
    """Return what a Parquet table says of all of its rows. Raises InvalidInput where it says nothing, and OSError."""
    info = _open_parquet(path)[1]
    if info is None:
        raise InvalidInput(f"{path} holds no metadata.", "Write it with misfit score.")
    return info


def read_rows(path: Path) -> Iterator[list[ScoreRow]]:
    """Yield the rows of a Parquet table in parts. Raises InvalidInput and OSError."""
    for batch in _open_parquet(path)[0].iter_batches(ROWS_AT_ONCE, columns=list(COLUMNS)):
        yield list(_rows_of(path, batch.to_pylist()))


def _read_parquet(path: Path) -> ScoresTable:
    return ScoresTable([row for rows in read_rows(path) for row in rows], _open_parquet(path)[1])


def _open_parquet(path: Path) -> tuple[Any, TableInfo | None]:
    """Return a Parquet file, and what it says of all rows."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{path} is no complete Parquet file: {error}.") from None
    _check_columns(path, file.schema_arrow.names)
    metadata = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
    return file, None if metadata is None else TableInfo.from_json(metadata)


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
