"""Links in an archive: which file of the archive each of them leads to."""

from __future__ import annotations

import posixpath
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping

# As many links in a row are followed, as by Linux.
MOST_LINKS = 40
# Folders and characters of a path that a link leads through, at most.
MOST_FOLDERS, LONGEST_PATH = 100, 4096


def join(folder: str, target: str) -> str:
    """Return the path within the archive of a link's target. A path that leaves it stays one that no member has."""
    return posixpath.normpath(posixpath.join(folder, target.replace("\\", "/")))


class Links:
    """The links of one archive. Each is followed once, however many paths lead through it."""

    def __init__(self, targets: Mapping[str, str], files: Iterable[str], folders: Collection[str]) -> None:
        """Index the links: the path of each, and the path that it leads to; and what else the archive has."""
        self._targets, self._folders = targets, folders
        self._sorted_files = sorted(files) if targets else []
        self._ends: dict[str, str | None] = {}  # of the links that were followed

    def follow(self, path: str) -> str | None:
        """Return the path that the link at `path` leads to in the end; None where it goes in a circle, or too far."""
        return self._follow(path, 0)

    def is_folder(self, path: str) -> bool:
        """Return whether the archive has a folder of that path. It need not list the folders of its files."""
        if path == "." or path in self._folders:
            return True
        at = bisect_left(self._sorted_files, f"{path}/")
        return at < len(self._sorted_files) and self._sorted_files[at].startswith(f"{path}/")

    def _follow(self, link: str, depth: int) -> str | None:
        if link not in self._ends:
            self._ends[link] = None  # for where it leads back to itself
            self._ends[link] = self._resolve(self._targets[link], depth + 1) if depth < MOST_LINKS else None
        return self._ends[link]

    def _resolve(self, path: str, depth: int) -> str | None:
        """Return a path with each link in it followed, its folders' links as well."""
        if len(path) > LONGEST_PATH or path.count("/") > MOST_FOLDERS:
            return None
        resolved = ""
        for part in path.split("/"):
            resolved = posixpath.join(resolved, part) if part else resolved or "/"
            end = self._follow(resolved, depth) if resolved in self._targets else resolved
            if end is None or len(end) > LONGEST_PATH:
                return None
            resolved = end
        return resolved
