"""Sources, the images that a command names, as a table of columns: a million of them take some 60 MB.

Objects of Python would take ten times as much. A table goes to other processes as its arrays.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from service.core.types import IndexArray
from service.errors import readable
from service.images.decode import Content
from service.offline.inputs.stored_files import Kind, Place, join_path, read_place


@dataclass(frozen=True, slots=True)
class Source:
    """One image, which `read` reads; it raises UndecodableImage.

    id       its path, relative to the folder that holds all files
    path     absolute, or a URI; `archive.zip!/member` within an archive, `array.npy[3]` within an array
    group    the request batch that it belongs to
    is_file  whether it is a file of its own, on this machine
    """

    id: str
    path: str
    read: Callable[[], Content]
    group: str = ""
    is_file: bool = False


class Texts:
    """Texts that are appended one by one, as UTF-8 in one buffer. A file's name may hold surrogates."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def freeze(self) -> FrozenTexts:
        return FrozenTexts(np.frombuffer(bytes(self._bytes), np.uint8), np.array(self._ends, np.int64))


@dataclass(frozen=True)
class FrozenTexts:
    """Texts in one buffer (bytes,), each from one of `ends` (n + 1,) to the next."""

    buffer: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __getitem__(self, at: int) -> str:
        return bytes(self.buffer[self.ends[at] : self.ends[at + 1]]).decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class SourceTable(Sequence[Source]):
    """Sources in order. Columns are shared by all tables that were selected from one; `rows` says which are in this.

    base          the length of what all folders begin with: ids leave it out
    folders       the distinct folders, archives and URIs that images lie in
    groups        the distinct groups
    names         (N,)  the path of each image within its folder
    folder        (N,)  number of its folder
    kind          (N,)  Kind
    member, row   (N,)  its number in its archive and in its array; -1 where there is none
    group         (N,)  number of its group
    rows          (n,)  of this table
    """

    base: int
    folders: tuple[str, ...]
    groups: tuple[str, ...]
    names: FrozenTexts
    folder: NDArray[np.int32]
    kind: NDArray[np.int8]
    member: NDArray[np.int32]
    row: NDArray[np.int32]
    group: NDArray[np.int32]
    rows: IndexArray

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Source | Self:
        if isinstance(index, slice):
            return self.select(self.rows[index])
        at = int(self.rows[index])
        place = self._place(at)
        path = join_path(place)
        return Source(
            self._id(at), path, partial(read_place, place), self.groups[self.group[at]], place.kind is Kind.FILE
        )

    def __iter__(self) -> Iterator[Source]:
        return (self[at] for at in range(len(self)))

    def select(self, rows: IndexArray) -> Self:
        """Return the table of these rows of the columns."""
        return replace(self, rows=rows)

    def sort_by_group(self) -> Self:
        """Return the sources group by group, in the order in which the groups first come."""
        group = self.group[self.rows]
        names, first = np.unique(group, return_index=True)
        place = np.empty(len(self.groups), dtype=np.intp)
        place[names[np.argsort(first)]] = np.arange(len(names))
        return self.select(self.rows[np.argsort(place[group], kind="stable")])

    def spans(self) -> list[tuple[str, int, int]]:
        """Return each run of sources of one group: its name, the position of its first, and that behind its last."""
        if not len(self):
            return []
        group = self.group[self.rows]
        starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
        return [(self.groups[group[start]], start, stop) for start, stop in pairwise(starts)]

    @property
    def ids(self) -> Ids:
        """Return the ids alone."""
        return Ids(self)

    def _id(self, at: int) -> str:
        return id_of(self.folders[self.folder[at]], self.names[at], self.base)

    def _place(self, at: int) -> Place:
        return Place(
            Kind(int(self.kind[at])),
            self.folders[self.folder[at]],
            self.names[at],
            int(self.member[at]),
            int(self.row[at]),
        )


class Ids(Sequence[str]):
    """The ids of a table's sources, each made when it is asked for."""

    def __init__(self, table: SourceTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        table = self._table
        if isinstance(index, slice):
            return [table._id(int(at)) for at in table.rows[index]]
        return table._id(int(table.rows[index]))


class TableBuilder:
    """Gathers images, and gives them ids once all are there."""

    def __init__(self) -> None:
        self._names = Texts()
        self._folders: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._folder, self._member, self._row, self._group = array("i"), array("i"), array("i"), array("i")
        self._kind, self._is_reference = array("b"), array("b")

    def add(
        self,
        kind: Kind,
        folder: str,
        name: str,
        *,
        member: int = -1,
        row: int = -1,
        group: str | None = None,
        is_reference: bool = False,
    ) -> None:
        """Add an image. `group` is that of a table; None where its folder may be its group."""
        self._names.append(name)
        self._folder.append(self._folders.setdefault(folder, len(self._folders)))
        self._kind.append(kind)
        self._member.append(member)
        self._row.append(row)
        self._group.append(-1 if group is None else self._number_group(group))
        self._is_reference.append(is_reference)

    def __len__(self) -> int:
        return len(self._kind)

    @property
    def folders(self) -> list[str]:
        """Return the distinct folders."""
        return list(self._folders)

    def build(self, base: int, group_of: Callable[[str, str, str], str] | None) -> tuple[SourceTable, SourceTable]:
        """Return the images and those of the reference set.

        base      the length of what all folders begin with
        group_of  the group of an image that came from no table, by its folder, name and id; None: there are no groups
        """
        names, folders = self._names.freeze(), list(self._folders)
        if group_of is None:
            self._groups, group = {"": 0}, np.zeros(len(self), np.int32)
        else:
            group = np.array(self._group, np.int32)
            for at in np.flatnonzero(group < 0).tolist():
                folder, name = folders[self._folder[at]], names[at]
                group[at] = self._number_group(group_of(folder, name, id_of(folder, name, base)))
        is_reference = np.array(self._is_reference, bool)
        table = SourceTable(
            base,
            tuple(folders),
            tuple(self._groups),
            names,
            np.array(self._folder, np.int32),
            np.array(self._kind, np.int8),
            np.array(self._member, np.int32),
            np.array(self._row, np.int32),
            group,
            np.flatnonzero(~is_reference),
        )
        return table, table.select(np.flatnonzero(is_reference))

    def _number_group(self, group: str) -> int:
        return self._groups.setdefault(group, len(self._groups))


def id_of(folder: str, name: str, base: int) -> str:
    """Return the id of an image: its path, without the `base` letters that all folders begin with."""
    return readable(f"{folder[base:]}/{name}".replace(os.sep, "/").lstrip("/"))
