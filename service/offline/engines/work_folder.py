"""The folder of a large piece of work: what is done stays there, so that the same command goes on after any end.

manifest.json      the bundle, the options and the images: other work is refused
latents/N.parquet  the latents of a shard of images, complete or not there
scores/N.parquet   the table of scores of a partition, whole groups, complete or not there
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import InvalidInput, readable
from service.offline.atomic_files import write_text
from service.offline.inputs.source_table import Source

FORMAT = 4
MANIFEST, LATENTS, SCORES, LOCK = "manifest.json", "latents", "scores", "lock"
# What a manifest says, in the words of an error.
WORDS = {
    "bundle_id": "bundle",
    "options": "options",
    "images": "images",
    "contexts": "contexts",
    "shard_images": "sizes of shards",
    "format": "format",
}


@dataclass(frozen=True)
class WorkFolder:
    """A folder that one process alone works in, with its helpers. On a cluster it lies where all machines see it."""

    path: Path

    def latents(self, number: int) -> Path:
        """Return the path of a shard of latents. A file that is there is complete."""
        return self.path / LATENTS / f"{number:08}.parquet"

    def scores(self, number: int) -> Path:
        """Return the path of a partition's scores. A file that is there is complete."""
        return self.path / SCORES / f"{number:08}.parquet"


def describe_work(
    bundle_id: str,
    options: Mapping[str, Any],
    sources: Iterable[Source],
    contexts: Iterable[str],
    shard_images: int,
) -> dict[str, Any]:
    """Return the manifest of the work. Images are told apart by name, path and group, not by content."""
    images = hashlib.sha256()
    for source in sources:
        images.update("\0".join((source.id, readable(source.path), source.group, "\n")).encode())
    normal = hashlib.sha256("\n".join(contexts).encode())
    return {
        "format": FORMAT,
        "bundle_id": bundle_id,
        "options": dict(options),
        "images": images.hexdigest(),
        "contexts": normal.hexdigest(),
        "shard_images": shard_images,
    }


@contextmanager
def open_work_folder(path: Path, manifest: Mapping[str, Any]) -> Iterator[WorkFolder]:
    """Open the folder for the work of `manifest`, new or begun before.

    Raises InvalidInput where it holds other work, or where another process works in it, and OSError.
    """
    for name in (LATENTS, SCORES):
        (path / name).mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(f"Another process works in {path}.", "Wait for it, or name another folder.") from None
        _check_manifest(path, manifest)
        for scratch in (*(path / LATENTS).glob(".*"), *(path / SCORES).glob(".*")):
            scratch.unlink(missing_ok=True)  # of a process that was ended in the middle of a file
        yield WorkFolder(path.absolute())


def remove_work(path: Path) -> None:
    """Remove what the folder holds, and the folder where nothing else is in it. Raises OSError."""
    for folder in (path / LATENTS, path / SCORES):
        for file in folder.glob("*.parquet"):
            file.unlink()
    for name in (MANIFEST, LOCK):
        (path / name).unlink(missing_ok=True)
    for folder in (path / LATENTS, path / SCORES, path):
        if folder.is_dir() and not any(folder.iterdir()):
            os.rmdir(folder)


def _check_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    file = path / MANIFEST
    if not file.exists():
        if any((path / LATENTS).iterdir()):
            raise InvalidInput(f"{path} holds latents but no {MANIFEST}.", "Name another folder.")
        write_text(file, json.dumps(manifest, indent=2) + "\n")
        return
    try:
        former = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{file} cannot be read: {error}.", "Name another folder.") from None
    if different := [word for name, word in WORDS.items() if former.get(name) != manifest[name]]:
        raise InvalidInput(
            f"{path} holds work that was begun with other {', '.join(different)}.",
            "Repeat that command to go on with it, or name another folder.",
        )
