"""Lists and tables of paths: text with a path on each line, CSV and Parquet with a column of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from service.errors import InvalidInput, readable

# The names that a column of paths has, the likelier first.
PATH_COLUMNS = (
    "path", "file_path", "filepath", "file", "filename", "file_name", "image_path", "image", "uri", "url",
)  # fmt: skip
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".txt", ".lst")


@dataclass(frozen=True)
class PathTable:
    """Paths, and the group of each where the table has a column of groups."""

    paths: list[str]
    groups: list[str] | None = None


def is_table(path: str) -> bool:
    """Return whether a file is a list or table of paths, by its name."""
    return path.lower().endswith(TABLE_SUFFIXES)


def split_list(content: bytes) -> list[str]:
    """Return the paths of a list: one on each line, or NUL between them, as `find -print0` writes them."""
    separator = b"\0" if b"\0" in content else b"\n"
    return [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator) if line.strip()]


def read_table(path: str, path_column: str = "", group_column: str = "") -> PathTable:
    """Return the paths in a file that `is_table`, and their groups where a column of these is named.

    Raises InvalidInput where the file cannot be read or has no such columns.
    """
    try:
        if path.lower().endswith((".txt", ".lst")):
            if group_column:
                raise InvalidInput(f"{path} is a list, which has no column {group_column}.", "Write a CSV.")
            with open(path, "rb") as file:
                return PathTable(split_list(file.read()))
        if path.lower().endswith(".parquet"):
            return _read_parquet(path, path_column, group_column)
        return _read_csv(path, path_column, group_column)
    except OSError as error:
        raise InvalidInput(f"{readable(path)} cannot be read: {error.strerror}.") from error


def _read_csv(path: str, path_column: str, group_column: str) -> PathTable:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        heading = file.readline()
        file.seek(0)
        # Spreadsheets write ; where a comma stands in numbers.
        delimiter = "\t" if path.lower().endswith(".tsv") else ";" if ";" in heading and "," not in heading else ","
        try:
            rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
        except csv.Error as error:
            raise InvalidInput(f"{readable(path)} is no CSV: {error}.") from error
    if not rows:
        raise InvalidInput(f"{readable(path)} is empty.")
    names = rows[0]
    if len(names) == 1 and not path_column and not group_column and names[0].casefold() not in PATH_COLUMNS:
        return PathTable([row[0] for row in rows])  # a list without a heading
    paths, groups = _find_columns(path, names, path_column, group_column)
    short = next((number for number, row in enumerate(rows, 1) if len(row) <= max(paths, groups)), None)
    if short is not None:
        raise InvalidInput(f"{readable(path)}: line {short} has {len(rows[short - 1])} cells, expected {len(names)}.")
    return PathTable([row[paths] for row in rows[1:]], None if groups < 0 else [row[groups] for row in rows[1:]])


def _read_parquet(path: str, path_column: str, group_column: str) -> PathTable:
    if find_spec("pyarrow") is None:
        raise InvalidInput(f"{readable(path)} is Parquet, which takes pyarrow.", 'pip install "misfit[tables]"')
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        paths, groups = _find_columns(path, names, path_column, group_column)
        kind = file.schema_arrow.types[paths]
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise InvalidInput(
                f"The column {names[paths]} of {readable(path)} is of type {kind}, expected texts that are paths.",
                "Write images that are in the table itself to files, and name these.",
            )
        table = file.read(columns=[names[index] for index in {paths, groups} if index >= 0])
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{readable(path)} is no complete Parquet file: {error}.") from None
    columns = [
        None if index < 0 else ["" if value is None else str(value) for value in table[names[index]].to_pylist()]
        for index in (paths, groups)
    ]
    return PathTable(columns[0] or [], columns[1])


def _find_columns(path: str, names: Sequence[str], path_column: str, group_column: str) -> tuple[int, int]:
    """Return the places of the columns of paths and of groups, -1 for groups that nobody asks for.

    Raises InvalidInput.
    """
    lower = [name.casefold() for name in names]
    listed = ", ".join(names)
    if path_column:
        if path_column not in names:
            raise InvalidInput(f"{readable(path)} has no column {path_column}; its columns are {listed}.")
        paths = list(names).index(path_column)
    else:
        known = [lower.index(name) for name in PATH_COLUMNS if name in lower]
        if not known:
            raise InvalidInput(
                f"{readable(path)} has the columns {listed}: none is called {', '.join(PATH_COLUMNS)}.",
                "Name the column of paths with --path-column.",
            )
        paths = known[0]
    if group_column and group_column not in names:
        raise InvalidInput(f"{readable(path)} has no column {group_column}; its columns are {listed}.")
    return paths, list(names).index(group_column) if group_column else -1
