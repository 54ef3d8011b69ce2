"""Where images come from: files, folders, patterns, archives, arrays, lists and tables of paths. None is decoded here.

A folder or an archive is read as the service reads a zip: a folder within it that is called reference is the reference
set, and what is no image by its name is left out, contexts included.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import BinaryIO

from service.api.uploads.archive_contents import (
    find_reference,
    leave_out_arrays,
    sort_members,
    warn_of_left_out,
    warn_of_like_reference,
)
from service.errors import InvalidInput, quoted, readable
from service.images import archive_names, archives, arrays, tar_headers
from service.images.archived_arrays import ArrayHeaders, is_array
from service.images.spec import Spec
from service.offline.inputs import hdf5_files, path_tables, remote_files
from service.offline.inputs.local_files import open_file, walk
from service.offline.inputs.remote_files import is_uri
from service.offline.inputs.source_table import Source, SourceTable, TableBuilder
from service.offline.inputs.stored_files import Kind, open_archive, open_array

STDIN = "-"
FOLDER = "folder"


@dataclass
class Inputs:
    """The inputs: images, those of a reference set, notes for the user, and the shapes of arrays of images."""

    images: SourceTable = field(default_factory=lambda: TableBuilder().build(0, None)[0])
    reference: SourceTable = field(default_factory=lambda: TableBuilder().build(0, None)[0])
    notes: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def check_axes(self, spec: Spec) -> None:
        """Raise ShapeMismatch where an array for a model of `spec` may have its axes in another order."""
        for shape in self.shapes:
            arrays.check_axes(shape, spec)


def find_sources(
    inputs: Sequence[str], *, by: str = "", path_column: str = "", stdin: BinaryIO | None = None
) -> Inputs:
    """Return the images that `inputs` name, in order: the files of a folder by their paths.

    inputs       paths of files and folders, patterns such as "a/**/*.png", URIs, or "-" for a list on `stdin`
    by           "folder": the group of an image is the folder that it lies in; or a column of the tables
    path_column  of the tables; by default the one whose name says so

    Raises InvalidInput where an input does not exist, or cannot be read, or holds no image.
    """
    finder = _Finder(by, path_column, stdin)
    for text in inputs:
        finder.add(text)
    return finder.result()


class _Finder:
    """Gathers images, and gives them ids once all are there."""

    def __init__(self, by: str, path_column: str, stdin: BinaryIO | None) -> None:
        self._by, self._path_column, self._stdin = by, path_column, stdin
        self._table = TableBuilder()
        self._left_out: list[str] = []
        self._notes: list[str] = []
        self._shapes: list[tuple[int, ...]] = []

    def add(self, text: str) -> None:
        if text == STDIN:
            self._add_list(path_tables.split_list((self._stdin or sys.stdin.buffer).read()), "")
        elif is_uri(text):
            self._add_uri(text)
        elif os.path.exists(text):
            self._add_path(text)
        elif glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise InvalidInput(f"No file matches {text}.", "Quote the pattern; ** stands for any folders.")
            for match in matches:
                self._add_path(match, named=False)
        else:
            raise InvalidInput(f"{text} does not exist.", "Name a file, a folder, a pattern, or - for a list.")

    def result(self) -> Inputs:
        """Return what was found. Raises InvalidInput where it is no image."""
        notes = [*warn_of_left_out([readable(name) for name in self._left_out]), *self._notes]
        if not len(self._table):
            raise InvalidInput(" ".join(("The input holds no image.", *notes)), "Name image files, or their folder.")
        base = len(_common_folder(self._table.folders))
        images, reference = self._table.build(base, self._group_of if self._by else None)
        if len(reference) and not len(images):
            notes.append(
                f"All {len(reference)} images are in a folder called reference: they were taken as the images."
            )
            images, reference = reference, images
        return Inputs(images, reference, notes, self._shapes)

    def _group_of(self, folder: str, name: str, id_: str) -> str:
        """Return the group of an image that came from no table."""
        if self._by != FOLDER:
            raise InvalidInput(
                f"{readable(f'{folder}/{name}')} comes from no table, so it has no column {self._by}.",
                "Group by folder, or name all images in a table.",
            )
        return id_.rpartition("/")[0]

    def _add_path(self, text: str, *, named: bool = True) -> None:
        """Add what lies at a path. What a pattern matches is left out where it is no image."""
        path = os.path.abspath(text)
        if os.path.isdir(path):
            self._add_folder(path)
        elif path_tables.is_table(path):
            if named:
                self._add_table(path)
            else:
                self._left_out.append(os.path.basename(path))
        elif not os.path.isfile(path):
            raise InvalidInput(f"{text} is neither a file nor a folder.")
        else:
            self._add_file(path, named=named)

    def _add_file(self, path: str, *, named: bool) -> None:
        folder, name = os.path.split(path)
        with open_file(path) as file:
            head = file.read(tar_headers.BLOCK)
        if head[:6] == b"\x93NUMPY":
            self._add_rows(Kind.ARRAY_ROW, path, open_array(path).shape)
        elif archives.is_zip(head) or tar_headers.is_tar(head):
            self._add_archive(path)
        elif head.startswith(hdf5_files.SIGNATURE):
            self._add_rows(Kind.HDF5_ROW, path, hdf5_files.read_shape(path))
        elif not named and (archive_names.is_no_image(name) or archive_names.is_system_file(name)):
            self._left_out.append(name)
        else:
            self._table.add(Kind.FILE, folder, name)

    def _add_folder(self, folder: str) -> None:
        names = list(walk(folder))
        left_out = [name for name in names if _is_left_out(name)]
        self._left_out += [name for name in left_out if archive_names.is_told(name)]
        kept = [name for name in names if not _is_left_out(name)]
        is_reference = find_reference([name.replace(os.sep, "/") for name in kept])
        for name, inside in zip(kept, is_reference, strict=True):
            self._table.add(Kind.FILE, folder, name, is_reference=inside)

    def _add_archive(self, path: str) -> None:
        archive = open_archive(path)
        contents, headers = sort_members(archive), ArrayHeaders()
        files, other_arrays, notes = leave_out_arrays(contents.files, headers)
        self._left_out += contents.left_out + [member.name for member in contents.contexts] + other_arrays
        self._notes += [*notes, *warn_of_like_reference(files)]
        numbers = {id(member): number for number, member in enumerate(archive.members)}
        for member, is_reference in files:
            number = numbers[id(member)]
            if is_array(member):
                self._shapes.append(headers.read(member).shape)
                for row, _ in enumerate(headers.iterate_rows(member)):
                    name = f"{member.name}[{row}]"
                    self._table.add(Kind.MEMBER_ROW, path, name, member=number, row=row, is_reference=is_reference)
            else:
                self._table.add(Kind.MEMBER, path, member.name, member=number, is_reference=is_reference)

    def _add_rows(self, kind: Kind, path: str, shape: tuple[int, ...]) -> None:
        folder, name = os.path.split(path)
        self._shapes.append(shape)
        for row in range(shape[0]):
            self._table.add(kind, folder, f"{name}[{row}]", row=row)

    def _add_table(self, path: str) -> None:
        table = path_tables.read_table(path, self._path_column, "" if self._by == FOLDER else self._by)
        folder = os.path.dirname(path)
        exists = (
            is_uri(each) or os.path.exists(os.path.join(folder, each)) or os.path.exists(each) for each in table.paths
        )
        if table.paths and not any(exists):
            raise InvalidInput(
                f"{readable(path)} was read as a list of paths, and none of its {len(table.paths)} files exists; the "
                f"first is {quoted(table.paths[0])}.",
                "Relative paths start at the folder of the list, or at the current one.",
            )
        self._add_list(table.paths, folder, table.groups)

    def _add_list(self, paths: Iterable[str], beside: str, groups: Sequence[str] | None = None) -> None:
        """Add the files of a list. A relative path starts at the folder `beside`, if it is there, or at this one."""
        for position, text in enumerate(paths):
            group = None if groups is None else readable(groups[position])
            if is_uri(text):
                folder, _, name = text.rpartition("/")
                self._table.add(Kind.URI, folder, name, group=group)
                continue
            path = os.path.join(beside, text)
            path = os.path.abspath(path if os.path.exists(path) else text)
            if os.path.isdir(path):
                raise InvalidInput(f"The list names {text}, which is a folder.", "Lists name files.")
            folder, name = os.path.split(path)
            self._table.add(Kind.FILE, folder, name, group=group)

    def _add_uri(self, uri: str) -> None:
        for path in remote_files.expand(uri):
            folder, _, name = path.rpartition("/")
            if _is_left_out(name) and path != uri:
                self._left_out.append(name)
            else:
                self._table.add(Kind.URI, folder, name)


def _is_left_out(name: str) -> bool:
    """Return whether a file of a folder is no image by its name."""
    return archive_names.is_system_file(name) or archive_names.is_no_image(name) or archive_names.is_archive(name)


def _common_folder(folders: Collection[str]) -> str:
    """Return the folder, or the beginning of the URI, that all folders lie in; "" where they share nothing."""
    parts = [folder.split(os.sep) for folder in folders]
    first, last = min(parts), max(parts)  # all others lie between the two
    shared = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    return os.sep.join(shared)


def by_group(sources: Iterable[Source]) -> dict[str, list[Source]]:
    """Return images by their groups, in the order in which the groups first come."""
    groups: dict[str, list[Source]] = {}
    for source in sources:
        groups.setdefault(source.group, []).append(source)
    return groups
