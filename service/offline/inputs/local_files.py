"""Files of this machine: found in folders, read, mapped. What cannot be read is an error that says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from typing import BinaryIO

from service.errors import InvalidInput, UndecodableImage, readable
from service.images import archive_names

Stamp = tuple[int, ...]


def read_file(path: str) -> bytes:
    """Return the bytes of a file. Raises UndecodableImage."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UndecodableImage(f"The file cannot be read: {error.strerror}.") from error


def walk(folder: str) -> Iterator[str]:
    """Yield the paths of the regular files of the tree below `folder`, relative to it, sorted; hidden ones left out.

    Raises InvalidInput where the folder itself cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise InvalidInput(f"{readable(str(error.filename))} cannot be listed: {error.strerror}.") from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not archive_names.is_system_file(name)]
        relative = os.path.relpath(parent, folder)
        prefix = "" if relative == os.curdir else relative + os.sep
        found += [prefix + name for name in files if os.path.isfile(os.path.join(parent, name))]
    yield from sorted(found)


def open_file(path: str) -> BinaryIO:
    """Return a file to read. Raises InvalidInput."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidInput(f"{readable(path)} cannot be read: {error.strerror}.") from error


def map_file(path: str) -> memoryview:
    """Return the bytes of a file, which the system reads when they are used."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))


def stamp(path: str) -> Stamp:
    """Return what tells a file from another one at the same path: what is open of that one must not be read."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
