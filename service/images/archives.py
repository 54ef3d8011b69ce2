"""Zip and uncompressed tar archives in memory, or mapped.

Nothing that a header or a directory claims is trusted: sizes and counts are checked before anything is unpacked.
"""

from __future__ import annotations

import posixpath
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO, RawIOBase
from typing import Any, NamedTuple, NoReturn

from service.errors import InvalidInput, TooLarge, TooManyImages, UndecodableImage, quoted
from service.images import archive_names
from service.images.archive_links import Links, join
from service.images.arrays import CURL_HINT
from service.images.formats import other_files
from service.images.tar_headers import is_tar, read_headers, read_sparse

# A zip holds the path that a symbolic link leads to as the link's content.
MOST_LINK_BYTES = 4096
# Zips that are written one behind another, as by cat. Each is read to its end.
MOST_ZIPS = 16
# Every entry of a zip's directory begins so, and is at least as long.
ENTRY, ENTRY_BYTES = b"PK\x01\x02", 46
DOS_FOLDER = 0x10
ENCRYPTED = 1  # a flag of a zip's entry
# Ways to compress a zip's entry that are not read.
METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}
UNPACK = "Unpack it, or send it by itself."
NO_LINK = "Archive the files themselves: tar -h follows links, and so does zip without -y."


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int  # bytes once unpacked
    read: Callable[[], bytes | memoryview]  # all bytes
    head: Callable[[int], bytes | memoryview]  # the first bytes, as many as asked for


class Link(NamedTuple):
    """A link in an archive. `target` is the path within the archive that it leads to."""

    name: str
    target: str


# Files and links; folders; what is neither, as a device.
Entries = tuple[list[Member | Link], set[str], list[str]]


class Archive(NamedTuple):
    """The files of an archive, and the names of what is none of the user's files: a system's, a device, ..."""

    members: list[Member]
    left_out: list[str]


class MemoryFile(RawIOBase):
    """A file of bytes that are in memory or mapped, which copies only what is read; BytesIO would copy all of them."""

    def __init__(self, content: bytes | memoryview) -> None:
        super().__init__()
        self._content, self._position = memoryview(content), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: len(self._content)}[whence]
        if start + offset < 0 and whence == SEEK_SET:
            raise ValueError(f"{offset} lies in front of the file")
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        part = self._content[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def is_zip(content: bytes | memoryview) -> bool:
    """Return whether the file begins as a zip does."""
    return content[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read_archive(content: bytes | memoryview, max_members: int, max_bytes: int) -> Archive:
    """Return the files of a zip or an uncompressed tar, in the archive's order. A file is unpacked when it is read.

    Links are followed within the archive; one that leads elsewhere is a file that cannot be read.

    Raises InvalidInput where `content` is neither, TooManyImages above `max_members` files, and TooLarge where the
    files together unpack to more than `max_bytes`.
    """
    entries, folders, others = (_list_tar if is_tar(content) else _list_zips)(content, max_members)
    members, left_out = [], others
    files = {entry.name: entry for entry in entries if isinstance(entry, Member)}
    targets = {entry.name: entry.target for entry in entries if isinstance(entry, Link)}
    links = Links(targets, files, folders)
    for entry in entries:
        end = links.follow(entry.name) if isinstance(entry, Link) else None
        if archive_names.is_system_file(entry.name) or (end is not None and links.is_folder(end)):
            left_out.append(entry.name)  # a folder's files are members themselves
        elif archive_names.is_archive(entry.name):
            members.append(_failing(entry.name, f"{quoted(entry.name)} is an archive within the archive.", UNPACK))
        elif isinstance(entry, Member):
            members.append(entry)
        elif end in files:
            members.append(files[end]._replace(name=entry.name))
        else:
            problem = f"{quoted(entry.name)} is a link to {quoted(entry.target)}, which is no file of the archive."
            members.append(_failing(entry.name, problem, NO_LINK))
    _check_count(len(members), max_members)
    if (total := sum(member.size for member in members)) > max_bytes:
        raise TooLarge(
            f"The archive unpacks to {total} bytes; at most {max_bytes} are taken.", "Send it in several requests."
        )
    return Archive(members, [name for name in left_out if archive_names.is_told(name)])


def _list_zips(content: bytes | memoryview, max_members: int) -> Entries:
    """List a zip, and the zips that are written in front of it, as by cat: zipfile reads the last one only."""
    # zipfile creates an object for every directory entry, so the entries are counted by their signature first.
    if len(content) // ENTRY_BYTES > 2 * max_members:
        _check_count(sum(1 for _ in re.finditer(ENTRY, content)), 2 * max_members)
    if not content:
        raise InvalidInput("The archive has 0 bytes.", "Was it written to its end?")
    whole = memoryview(content)
    try:
        zips = [zipfile.ZipFile(BytesIO(content) if isinstance(content, bytes) else MemoryFile(whole))]
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _no_archive(content, error) from error
    end = len(content)
    while is_zip(content) and 0 < (start := min((info.header_offset for info in zips[0].infolist()), default=0)) < end:
        try:
            zips.insert(0, zipfile.ZipFile(MemoryFile(whole[:start])))
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            break  # something else stands in front of it, as a file that was taken out of the directory
        if len(zips) > MOST_ZIPS:
            raise InvalidInput(f"More than {MOST_ZIPS} zips are written one behind another.", "Send each as a file.")
        end = start
    listed = [_list_zip(archive, len(content)) for archive in zips]
    entries = [entry for files, _ in listed for entry in files]
    return entries, {folder for _, folders in listed for folder in folders}, []


def _list_zip(archive: zipfile.ZipFile, length: int) -> tuple[list[Member | Link], set[str]]:
    """Return the files and links of a zip in a content of `length` bytes, and its folders."""
    entries: list[Member | Link] = []
    folders: set[str] = set()
    infos = archive.infolist()
    if sum(info.compress_size for info in infos) > length:
        raise InvalidInput("Files of the zip lie on one another.", "Zip them again, each with its own bytes.")
    for info, name in zip(infos, archive_names.decode_zip_names(infos), strict=True):
        mode, path = info.external_attr >> 16, archive_names.normalise(name)
        if name.endswith(("/", "\\")) or stat.S_ISDIR(mode) or (info.external_attr & DOS_FOLDER and not info.file_size):
            folders.add(path)
        elif stat.S_ISLNK(mode) and info.file_size <= MOST_LINK_BYTES:
            entries.append(_read_zip_link(archive, info, path))
        else:
            unzip = partial(_unzip, archive, info, path)
            entries.append(Member(path, info.file_size, partial(unzip, info.file_size), unzip))
    return entries, folders


def _no_archive(content: bytes | memoryview, error: Exception) -> InvalidInput:
    """Return the error of a file that is neither a zip nor a tar, and says what it is instead."""
    if is_zip(content):
        return InvalidInput(
            f"{len(content)} bytes are not a complete zip: {error}.",
            f"It may have been cut short: send it again. {CURL_HINT}",
        )
    kind = other_files.identify_any(content)
    what = f"it is {kind.name}" if kind else str(error)
    return InvalidInput(
        f"{len(content)} bytes are not a complete zip, nor an uncompressed tar: {what}.",
        kind.hint if kind else other_files.ARCHIVE_HINT,
    )


def _read_zip_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> Member | Link:
    try:
        target = bytes(_unzip(archive, info, path, info.file_size)).decode("utf-8", "replace")
    except UndecodableImage as error:
        return _failing(path, error.message, error.hint)
    return Link(path, join(posixpath.dirname(path), target))


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, max_bytes: int) -> bytes:
    """Return the first `max_bytes` bytes of a member. Raises UndecodableImage if it cannot be unpacked."""
    if info.flag_bits & ENCRYPTED:
        raise UndecodableImage(f"{quoted(path)} is encrypted.", "Zip it without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = METHODS.get(info.compress_type, "a method")
        raise UndecodableImage(
            f"{quoted(path)} is compressed by {method} ({info.compress_type}).", "Zip it stored or deflated."
        )
    try:
        with archive.open(info) as file:
            return file.read(min(max_bytes, info.file_size))  # never more than the directory promised
    except Exception as error:  # zlib.error, BadZipFile, EOFError, struct.error ...: it depends on the damage
        raise UndecodableImage(
            f"{quoted(path)} cannot be unpacked: {str(error).rstrip('.')}.",
            "It is damaged in the zip: zip it again, and send that.",
        ) from error


def _list_tar(content: bytes | memoryview, max_members: int) -> Entries:
    view = memoryview(content)
    infos = []
    try:
        for info in read_headers(content):
            infos.append(info)
            _check_count(len(infos), 2 * max_members)
    except (tarfile.TarError, ValueError, IndexError, EOFError, OverflowError, RecursionError) as error:
        raise InvalidInput(
            f"{len(content)} bytes are not a complete tar: {error}.", "It may have been cut short: send it again."
        ) from error
    entries: list[Member | Link] = []
    folders, others = set(), []
    names = _decode_tar_names([info.name for info in infos])
    targets = _decode_tar_names([info.linkname for info in infos])
    for info, name, target in zip(infos, names, targets, strict=True):
        path = archive_names.normalise(name)
        if info.isdir():
            folders.add(path)
        elif info.islnk():  # a hard link names its target from the archive's root
            entries.append(Link(path, archive_names.normalise(target)))
        elif info.issym():
            entries.append(Link(path, join(posixpath.dirname(path), target)))
        elif info.issparse():
            parts: Any = info.sparse  # (offset, size) of each, as tarfile read them
            read = partial(read_sparse, path, view[info.offset_data :], parts, info.size)
            entries.append(Member(path, info.size, read, read))
        elif info.isreg():
            data = view[info.offset_data : info.offset_data + info.size]
            entries.append(Member(path, info.size, partial(bytes, data), partial(_take_first, data)))
        else:
            others.append(path)
    return entries, folders, others


def _decode_tar_names(names: Sequence[str]) -> list[str]:
    return archive_names.decode_names(
        [name.encode("utf-8", "surrogateescape") for name in names], archive_names.UNIX_ENCODINGS
    )


def _take_first(data: memoryview, max_bytes: int) -> memoryview:
    return data[:max_bytes]


def _failing(name: str, message: str, hint: str) -> Member:
    """Return a member that raises UndecodableImage when it is read."""

    def fail(_: int = 0) -> NoReturn:
        raise UndecodableImage(message, hint)

    return Member(name, 0, fail, fail)


def _check_count(count: int, limit: int) -> None:
    """Raise TooManyImages where an archive has more than `limit` members."""
    if count > limit:
        raise TooManyImages(
            f"The archive has {count} members or more; at most {limit} are taken.", "Send it in several requests."
        )
