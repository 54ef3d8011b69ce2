"""What is done with the files of flagged images: copied, linked or moved into a folder. Nothing is ever overwritten."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from service.api.score_records import ScoreRow
from service.cli.endings import WrongUsage
from service.errors import MisfitError
from service.images.pictures import png
from service.images.sample_range import Samples
from service.offline.atomic_files import new_file, write_bytes
from service.offline.heat_map_files import safe_path
from service.offline.inputs.source_table import Source

Action = Literal["copy", "link", "move"]
DONE: dict[Action, str] = {"copy": "copied", "link": "linked", "move": "moved"}


def check_action(action: Action, sources: Iterable[Source]) -> None:
    """Raise WrongUsage where an image is no file that can be linked or moved."""
    if action == "copy":
        return
    for source in sources:
        if not source.is_file:
            raise WrongUsage(
                f"{source.path} is no file of its own: it cannot be {DONE[action]}.", "Use --copy-flagged."
            )


def place_flagged(action: Action, rows: Sequence[ScoreRow], sources: Sequence[Source], folder: Path) -> int:
    """Copy, link or move the files of flagged images below `folder`, under their ids. Return how many.

    A file that is there already stays: the new one gets " (2)" in its name, unless both are the same. Raises OSError.
    """
    flagged = {(row.group, row.id) for row in rows if row.is_outlier}
    count = 0
    for source in sources:
        if (source.group, source.id) not in flagged:
            continue
        target = folder / safe_path(source.id)
        target.parent.mkdir(parents=True, exist_ok=True)
        _place(action, source, target)
        count += 1
    return count


def _place(action: Action, source: Source, target: Path) -> None:
    content = b""
    if not source.is_file:
        content, suffix = _read(source)
        target = target.with_name(target.name + suffix)
    target = _find_free(target, Path(source.path) if source.is_file else None, content, may_be_same=action != "move")
    if target.exists() or target.is_symlink():
        return  # the same file, of an earlier run
    if not source.is_file:
        write_bytes(target, content)
    elif action == "copy":
        _copy(source.path, target)
    elif action == "link":
        os.symlink(source.path, target)
    else:
        _move(source.path, target)


def _copy(path: str, target: Path) -> None:
    with new_file(target) as scratch:
        shutil.copy2(path, scratch)


def _move(path: str, target: Path) -> None:
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(path, target)  # to another disk
        os.unlink(path)


def _read(source: Source) -> tuple[bytes, str]:
    """Return an image's bytes, and a suffix for its name where it was no file. Raises OSError."""
    try:
        content = source.read()
    except MisfitError as error:
        raise OSError(str(error)) from error
    if isinstance(content, np.ndarray):
        pixels = content if content.dtype == np.uint8 else None
        if pixels is None:
            return _to_npy(content), ".npy"
        return png.to_png(pixels if pixels.ndim == 3 else pixels[..., None]), ".png"
    return bytes(content), ""


def _to_npy(pixels: Samples) -> bytes:
    file = BytesIO()
    np.save(file, pixels[None])
    return file.getvalue()


def _find_free(target: Path, original: Path | None, content: bytes, *, may_be_same: bool) -> Path:
    """Return `target`, or a name beside it that is free, or that `may_be_same` holds the same file."""
    number, path = 2, target
    while path.exists() or path.is_symlink():
        if may_be_same and path.is_file() and path.read_bytes() == (original.read_bytes() if original else content):
            return path
        path = target.with_name(f"{target.stem} ({number}){target.suffix}")
        number += 1
    return path
