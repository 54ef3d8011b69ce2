"""The photographs of a folder tree: which files there are, and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import InvalidInput, readable
from service.images.conform import Note
from service.images.decode import IntArray, Row, read_row
from service.images.formats.files import ENDINGS
from service.images.limits import Limits
from service.images.sample_range import SampleRange
from service.images.spec import Spec, Uint8Array

# As the service takes by default.
LIMITS = Limits(max_pixels=64_000_000, max_cost=512 * 1024 * 1024)


@dataclass(frozen=True)
class Photographs:
    """The pixels of those files that could be read, and why the others could not.

    pixels  uint8 (k, H, W, 3)
    sizes   (k, 2) width and height in the file
    read    (k,) positions among the files
    errors  by position
    notes   by position
    """

    pixels: Uint8Array
    sizes: IntArray
    read: list[int]
    errors: dict[int, str]
    notes: dict[int, tuple[Note, ...]]


def find(folder: Path, apart_from: Path | None = None) -> list[Path]:
    """Return the image files of the tree below `folder`, sorted by path. Hidden files and folders are left out, and
    what lies in `apart_from`.

    Raises InvalidInput where there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder.", "Name the folder that holds the photographs.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
        and (apart_from is None or apart_from.resolve() not in path.resolve().parents)
    )
    if not files:
        raise InvalidInput(
            f"{folder} holds no image file: none of its files ends in {', '.join(sorted(ENDINGS))}.",
            "Name the folder that holds the photographs; folders within it are searched as well.",
        )
    return files


def read(files: Sequence[Path], spec: Spec, samples: SampleRange | None = None) -> Photographs:
    """Read and decode files as the service does: EXIF's orientation, transparency on white, resized to `spec`.

    samples: the range of deep samples, measured on all files; without it that of each file is its own
    """
    rows: list[Row] = []
    positions, errors, notes = [], {}, {}
    for position, file in enumerate(files):
        try:
            row = read_row(file.read_bytes(), spec, "fit", LIMITS, samples)
            rows.append(row)
            positions.append(position)
            if row.notes:
                notes[position] = row.notes
        except (InvalidInput, OSError) as error:
            errors[position] = readable(getattr(error, "message", None) or str(error))
    pixels = np.stack([row.pixels for row in rows]) if rows else np.empty((0, *spec.shape), np.uint8)
    sizes = np.array([row.size for row in rows], dtype=np.int64).reshape(-1, 2)
    return Photographs(pixels, sizes, positions, errors, notes)
