"""Shards of latents as Parquet: what pass one leaves for pass two. A file is complete, or not there.

Errors of the foreign check are null where there was no check, and nan where a screen left them out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service import errors
from service.core.detect.ood import OodCheck
from service.core.types import Float32Array, Float64Array, IndexArray
from service.errors import MisfitError
from service.images.conform import Note
from service.images.reading import Reading
from service.images.sample_range import Extent
from service.offline.atomic_files import new_file
from service.pipeline.batch import EncodedImages

READING = b"misfit_reading"
# Columns of the foreign check, and what stands for null in arrays of them.
ERRORS, UNCHECKED = ("error_ratio", "times_median"), -1.0
# Error types by their codes.
TYPES: dict[str, type[MisfitError]] = {
    each.code: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MisfitError)
}


@dataclass(frozen=True)
class Segment:
    """Consecutive images of one group, encoded, and what was noted while they were read."""

    images: EncodedImages
    reading: Reading


def write_shard(path: Path, segments: Mapping[str, Segment]) -> None:
    """Write the segments of one shard by their groups, in order. Raises OSError, after which no file is there."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {"group": [], "error": []}
    latents: list[Float32Array] = []
    checks: list[Any] = []
    for group, segment in segments.items():
        images = segment.images
        whole = np.zeros((len(images.ids), *images.latents.shape[1:]), dtype=np.float32)
        whole[images.positions] = images.latents
        check = np.full((len(images.ids), 2), UNCHECKED)
        if images.check is not None:
            check[images.positions] = np.stack([images.check.error_ratio, images.check.times_median], axis=1)
        latents.append(whole)
        checks.append(check)
        columns["group"] += [group] * len(images.ids)
        columns["error"] += [_error_to_json(images.errors.get(at)) for at in range(len(images.ids))]
    flat = np.concatenate(latents).reshape(len(columns["group"]), -1)
    ratios = np.concatenate(checks)
    table = pa.table(
        {
            "group": pa.array(columns["group"], pa.string()),
            "error": pa.array(columns["error"], pa.string()),
            "latents": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1]),
            "error_ratio": _to_column(ratios[:, 0]),
            "times_median": _to_column(ratios[:, 1]),
        }
    )
    notes = {group: _reading_to_json(segment.reading) for group, segment in segments.items()}
    with new_file(path) as scratch:
        parquet.write_table(table.replace_schema_metadata({READING: json.dumps(notes)}), scratch)


def read_error_ratio(path: Path) -> Float64Array:
    """Return the errors (n,) of a shard in units of the population's limit, UNCHECKED where there was no check."""
    from pyarrow import parquet

    return _from_column(parquet.read_table(path, columns=["error_ratio"])["error_ratio"])


def add_errors(path: Path, rows: IndexArray, check: OodCheck) -> None:
    """Write a shard again with the errors (k,) of the images in `rows` (k,). Raises OSError."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    for name in ERRORS:
        values = _from_column(table[name])
        values[rows] = getattr(check, name)
        table = table.set_column(table.schema.get_field_index(name), name, _to_column(values))
    with new_file(path) as scratch:
        parquet.write_table(table, scratch)


def _to_column(values: Float64Array) -> Any:
    import pyarrow as pa

    return pa.array(values, mask=values == UNCHECKED, from_pandas=False)


def _from_column(column: Any) -> Float64Array:
    values: Float64Array = np.array(column.fill_null(UNCHECKED).to_numpy())
    return values


class ShardReader:
    """Reads shards, and keeps the last one: the next small group is in the same."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._table: Any = None

    def read(self, path: Path) -> Any:
        """Return the table of a shard. Raises OSError."""
        from pyarrow import parquet

        if path != self._path:
            self._table, self._path = None, None  # never two in memory
            self._table, self._path = parquet.read_table(path), path
        return self._table


def read_group(
    reader: ShardReader,
    parts: Sequence[tuple[Path, slice]],
    group: str,
    ids: Sequence[str],
    error: str,
    reading: Reading,
) -> EncodedImages:
    """Return the images of one group, with these ids.

    parts    the shards that hold them, each with their rows in it
    error    what the check of the bundle measures, in words
    reading  learns what was noted of them
    """
    latents, ratios = [], []
    errors_by_position: dict[int, MisfitError] = {}
    first = 0
    for path, rows in parts:
        table = reader.read(path)
        restore_reading(table, group, reading)
        count = rows.stop - rows.start
        part = table.slice(rows.start, count)
        values = np.asarray(part["latents"].combine_chunks().flatten()).reshape(count, 2, -1)
        failed = {at: text for at, text in enumerate(part["error"].to_pylist()) if text is not None}
        usable = np.ones(count, dtype=bool)
        usable[list(failed)] = False
        errors_by_position |= {first + at: _error_from_json(text) for at, text in failed.items()}
        latents.append(values[usable])
        ratios.append(np.stack([_from_column(part[name]) for name in ERRORS], axis=1)[usable])
        first += count
    whole = np.concatenate(ratios)
    is_checked = len(whole) > 0 and not (whole == UNCHECKED).any()
    check = OodCheck(whole[:, 0], whole[:, 1], error) if is_checked else None
    return EncodedImages(ids, np.concatenate(latents), np.empty((0, 0, 0, 0), np.uint8), check, errors_by_position)


def _error_to_json(error: MisfitError | None) -> str | None:
    return None if error is None else json.dumps([error.code, error.message, error.hint])


def _error_from_json(text: str) -> MisfitError:
    code, message, hint = json.loads(text)
    return TYPES[code](message, hint)


def _reading_to_json(reading: Reading) -> dict[str, Any]:
    notes, count = reading.noted
    measured = {name: [each.low, each.high] for name, each in reading.samples.measured.items()}
    return {"notes": notes, "count": count, "measured": measured}


def restore_reading(table: Any, group: str, reading: Reading) -> None:
    """Tell `reading` what was noted of a group's images in a shard."""
    _restore_reading(json.loads(table.schema.metadata[READING]).get(group), reading)


def _restore_reading(content: dict[str, Any] | None, reading: Reading) -> None:
    if content is None:
        return
    notes: dict[Note, list[str]] = content["notes"]
    reading.note_all(notes, content["count"])
    reading.set_measured({name: Extent(*bounds) for name, bounds in content["measured"].items()})
