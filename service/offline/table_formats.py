"""The formats of a table of scores: Parquet, CSV, JSON lines. Each writes rows to one file, part by part."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol

from service.api.score_records import COLUMNS, FLAGS, TEXTS, ScoreRow, TableInfo

METADATA_KEY = "misfit"
# Rows of one row group of Parquet: the memory that writing takes, and what a reader may skip.
ROW_GROUP = 10_000


class Format(Protocol):
    """Writes rows to one file, and what is said of all of them at its end."""

    def write(self, rows: Sequence[ScoreRow]) -> None: ...

    def finish(self, info: TableInfo) -> None: ...

    def close(self) -> None: ...


class JsonLines:
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


class Csv:
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


class Parquet:
    """Rows are kept until a row group is full: readers are slow with many small ones."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._schema = _arrow_schema()
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[ScoreRow] = []

    def write(self, rows: Sequence[ScoreRow]) -> None:
        self._rows += rows
        while len(self._rows) >= ROW_GROUP:
            self._write_group(self._rows[:ROW_GROUP])
            del self._rows[:ROW_GROUP]

    def finish(self, info: TableInfo) -> None:
        if self._rows:
            self._write_group(self._rows)
        self._writer.add_key_value_metadata({METADATA_KEY: info.to_json()})

    def close(self) -> None:
        self._writer.close()

    def _write_group(self, rows: Sequence[ScoreRow]) -> None:
        import pyarrow as pa

        columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
        self._writer.write_table(pa.table(columns, schema=self._schema))


FORMATS: Mapping[str, type[JsonLines] | type[Csv] | type[Parquet]] = {
    ".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet
}  # fmt: skip


def _arrow_schema() -> Any:
    import pyarrow as pa

    types = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(FLAGS, pa.bool_()), "rank": pa.int64()}
    return pa.schema([(name, types.get(name, pa.float64())) for name in COLUMNS])


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
