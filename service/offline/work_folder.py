"""The folder of a large piece of work: what is done stays there, so that the same command goes on after any end.

manifest.json      the bundle, the options and the images: other work is refused
latents/N.parquet  the latents of SHARD_IMAGES images, complete or not there
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
from service.offline.sources import Source

FORMAT = 1
MANIFEST, LATENTS, LOCK = "manifest.json", "latents", "lock"
SHARD_IMAGES = 4096
# What a manifest says, in the words of an error.
WORDS = {"bundle_id": "bundle", "options": "options", "images": "images", "contexts": "contexts", "format": "format"}


@dataclass(frozen=True)
class WorkFolder:
    """A folder that this process alone works in."""

    path: Path

    def shard(self, number: int) -> Path:
        """Return the path of a shard of latents."""
        return self.path / LATENTS / f"{number:08}.parquet"

    def is_done(self, number: int) -> bool:
        """Return whether a shard is there. It is complete then."""
        return self.shard(number).exists()


def describe_work(
    bundle_id: str, options: Mapping[str, Any], sources: Iterable[Source], contexts: Iterable[str]
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
    }


@contextmanager
def open_work_folder(path: Path, manifest: Mapping[str, Any]) -> Iterator[WorkFolder]:
    """Open the folder for the work of `manifest`, new or begun before.

    Raises InvalidInput where it holds other work, or where another process works in it, and OSError.
    """
    (path / LATENTS).mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(f"Another process works in {path}.", "Wait for it, or name another folder.") from None
        _check_manifest(path, manifest)
        for scratch in (path / LATENTS).glob(".*"):
            scratch.unlink()  # of a process that was ended in the middle of a file
        yield WorkFolder(path)


def remove_work(path: Path) -> None:
    """Remove what the folder holds, and the folder where nothing else is in it. Raises OSError."""
    for shard in (path / LATENTS).glob("*.parquet"):
        shard.unlink()
    for name in (MANIFEST, LOCK):
        (path / name).unlink(missing_ok=True)
    for folder in (path / LATENTS, path):
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
