"""Where an image is stored, and how it is read: a file, a file elsewhere, a member of an archive, a row of an array.

A place is a handful of texts and numbers, so that any process can read it. Archives and arrays stay open while they are
read.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from service.errors import InvalidInput, UndecodableImage, readable
from service.images import archives, arrays
from service.images.archived_arrays import ArrayHeaders
from service.images.archives import Archive, Member
from service.images.decode import Content
from service.images.sample_range import Samples
from service.offline.inputs import hdf5_files, remote_files
from service.offline.inputs.local_files import Stamp, map_file, read_file, stamp

# Archives and arrays that are open at a time. Images come in the order of their files, and the directory of an open
# archive is in memory.
OPEN_FILES = 4
# An archive may unpack to what it likes: files are unpacked one by one.
NO_LIMIT = sys.maxsize
# Two threads at once would both read the archive.
_opening = threading.RLock()


class Kind(IntEnum):
    """How an image is stored."""

    FILE = 0
    URI = 1
    MEMBER = 2  # of an archive
    MEMBER_ROW = 3  # of an array in an archive
    ARRAY_ROW = 4
    HDF5_ROW = 5


class Place(NamedTuple):
    """Where one image is stored.

    folder  the folder, the URI of the folder, or the archive that it lies in
    name    its path there; `array.npy[3]` of an array
    member  its number in the archive, row its number in the array; -1 where there is none
    """

    kind: Kind
    folder: str
    name: str
    member: int = -1
    row: int = -1


def join_path(place: Place) -> str:
    """Return the path: absolute, or a URI; `archive.zip!/member`, `array.npy[3]`."""
    if place.kind in (Kind.MEMBER, Kind.MEMBER_ROW):
        return f"{place.folder}!/{place.name}"
    return f"{place.folder}/{place.name}" if place.kind is Kind.URI else os.path.join(place.folder, place.name)


def read_place(place: Place) -> Content:
    """Return the bytes or the pixels of an image. Raises UndecodableImage."""
    try:
        return READERS[place.kind](place)
    except UndecodableImage:
        raise
    except (InvalidInput, IndexError, OSError) as error:  # the file was another one when it was found
        raise UndecodableImage(f"{readable(join_path(place))} cannot be read: {error}.") from error


def open_archive(path: str) -> Archive:
    """Return the files of a zip or a tar of any size: it is the user's own. Raises InvalidInput."""
    with _opening:
        return _open_archive(path, stamp(path))


def open_array(path: str) -> Samples:
    """Return the images of an npy file. Raises InvalidInput."""
    with _opening:
        return _open_array(path, stamp(path))


@lru_cache(OPEN_FILES)
def _open_archive(path: str, stamp: Stamp) -> Archive:
    return archives.read_archive(map_file(path), NO_LIMIT, NO_LIMIT)


@lru_cache(OPEN_FILES)
def _open_array(path: str, stamp: Stamp) -> Samples:
    return arrays.read_npy(map_file(path))


@lru_cache(OPEN_FILES)
def _open_archived_array(archive: str, stamp: Stamp, member: int) -> list[Callable[[], Samples]]:
    return list(ArrayHeaders().iterate_rows(open_archive(archive).members[member]))


def _read_file(place: Place) -> Content:
    return read_file(join_path(place))


def _read_uri(place: Place) -> Content:
    return remote_files.read(join_path(place))


def _read_member(place: Place) -> Content:
    return _find_member(place, place.name).read()


def _read_member_row(place: Place) -> Content:
    _find_member(place, _without_row(place))
    with _opening:
        rows = _open_archived_array(place.folder, stamp(place.folder), place.member)
    return rows[place.row]()


def _find_member(place: Place, name: str) -> Member:
    member = open_archive(place.folder).members[place.member]
    if member.name != name:
        raise InvalidInput("the archive has changed")
    return member


def _read_array_row(place: Place) -> Content:
    pixels: Samples = open_array(os.path.join(place.folder, _without_row(place)))[place.row]
    return pixels


def _read_hdf5_row(place: Place) -> Content:
    return hdf5_files.read_row(os.path.join(place.folder, _without_row(place)), place.row)


def _without_row(place: Place) -> str:
    return place.name.rpartition("[")[0]


READERS: dict[Kind, Callable[[Place], Content]] = {
    Kind.FILE: _read_file,
    Kind.URI: _read_uri,
    Kind.MEMBER: _read_member,
    Kind.MEMBER_ROW: _read_member_row,
    Kind.ARRAY_ROW: _read_array_row,
    Kind.HDF5_ROW: _read_hdf5_row,
}
