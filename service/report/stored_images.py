"""Images read again by the path that a table of scores has of them: a file, a file in an archive, a row of an array."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from service.api.score_records import ScoreRow
from service.images import archives, arrays
from service.images.decode import Content
from service.images.sample_range import Samples

IN_ARCHIVE = "!/"
ARRAY_ROW = re.compile(r"(?P<file>.+\.npy)\[(?P<row>[0-9]+)\]", re.IGNORECASE | re.DOTALL)


class StoredImages:
    """Reads images by their rows. Archives and arrays that were opened once stay open."""

    def __init__(self, folder: Path | None = None) -> None:
        """Look for images where their paths say, and within `folder` by path, by id, or by the file's name alone."""
        self._folder = folder
        self._members = cache(_list_members)
        self._array = cache(_read_array)

    def read(self, row: ScoreRow) -> Content | None:
        """Return an image file's bytes, or pixels; None where there is no such image.

        Raises InvalidInput where an archive or array cannot be read, and OSError.
        """
        texts = [row.path, row.id] if self._folder else [row.path]
        for text in texts:
            for path in self._list_candidates(text):
                if (content := self._read_path(path)) is not None:
                    return content
        return None

    def _list_candidates(self, text: str) -> list[str]:
        if not text or "\0" in text:
            return []
        if self._folder is None:
            return [text]
        file, separator, member = text.partition(IN_ARCHIVE)
        inside, name = self._folder / file.lstrip("/"), self._folder / Path(file).name
        return [text, *(f"{path}{separator}{member}" for path in (inside, name))]

    def _read_path(self, path: str) -> Content | None:
        archive, separator, member = path.partition(IN_ARCHIVE)
        if separator and Path(archive).is_file():
            return self._read_member(archive, member)
        if (match := ARRAY_ROW.fullmatch(path)) and Path(match["file"]).is_file():
            return _get_row(self._array(match["file"]), int(match["row"]))
        return Path(path).read_bytes() if Path(path).is_file() else None

    def _read_member(self, archive: str, name: str) -> Content | None:
        members = self._members(archive)
        if name in members:
            return members[name]()
        if (match := ARRAY_ROW.fullmatch(name)) and match["file"] in members:
            return _get_row(self._array(archive, members[match["file"]]), int(match["row"]))
        return None


def _list_members(archive: str) -> dict[str, Callable[[], bytes | memoryview]]:
    """Return what reads each file of an archive. The archive is the user's own: its size has no limit."""
    content = Path(archive).read_bytes()
    return {member.name: member.read for member in archives.read_archive(content, sys.maxsize, sys.maxsize).members}


def _read_array(path: str, read: Callable[[], bytes | memoryview] | None = None) -> Samples:
    return arrays.read_npy((read or partial(Path.read_bytes, Path(path)))())


def _get_row(array: Samples, row: int) -> Samples | None:
    return array[row] if row < len(array) else None
