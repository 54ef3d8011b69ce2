"""Zip and uncompressed tar archives in memory, and the npy files in them.

Nothing that a header or a directory claims is trusted: sizes and counts are checked before anything is unpacked.
"""

from __future__ import annotations

import tarfile
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from typing import NamedTuple

from service.errors import InvalidInput, TooLarge, TooManyImages, UndecodableImage, quoted
from service.images.arrays import HEADER_BYTES, check_images, read_header, read_npy
from service.images.sample_range import Samples


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int  # bytes once unpacked
    read: Callable[[], bytes | memoryview]  # all bytes
    head: Callable[[int], bytes | memoryview]  # the first bytes, as many as asked for


def read_archive(content: bytes | memoryview, max_members: int, max_bytes: int) -> list[Member]:
    """Return the files of a zip or an uncompressed tar, in the archive's order. A file is unpacked when it is read.

    Raises InvalidInput where `content` is neither, TooManyImages above `max_members` files, and TooLarge where the
    files together unpack to more than `max_bytes`.
    """
    is_tar = content[257:262] == b"ustar"
    members = _list_tar(content, max_members) if is_tar else _list_zip(content, max_members)
    members = [member for member in members if not any(map(_is_clutter, PurePosixPath(member.name).parts))]
    _check_count(len(members), max_members)
    if (total := sum(member.size for member in members)) > max_bytes:
        raise TooLarge(
            f"The archive unpacks to {total} bytes; at most {max_bytes} are taken.", "Send it in several requests."
        )
    return members


def _list_zip(content: bytes | memoryview, max_members: int) -> list[Member]:
    # zipfile creates an object for every directory entry, so the entries are counted by their signature first.
    _check_count(bytes(content).count(b"PK\x01\x02"), 2 * max_members)
    try:
        archive = zipfile.ZipFile(BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InvalidInput(
            f"{len(content)} bytes are not a complete zip, nor an uncompressed tar: {error}.",
            "Send it uncompressed (tar -cf, not -czf) if it is a tar.",
        ) from error
    return [
        Member(
            info.filename,
            info.file_size,
            partial(_unzip, archive, info, info.file_size),
            partial(_unzip, archive, info),
        )
        for info in archive.infolist()
        if not info.filename.endswith("/")  # what is_dir() tests, but is_dir() fails on an empty name
    ]


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Return the first `max_bytes` bytes of a member. Raises UndecodableImage if it cannot be unpacked."""
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UndecodableImage(
            f"{quoted(info.filename)} is encrypted, or compressed by method {info.compress_type}.",
            "Zip it without a password, stored or deflated.",
        )
    try:
        with archive.open(info) as file:
            return file.read(min(max_bytes, info.file_size))  # never more than the directory promised
    except Exception as error:  # zlib.error, BadZipFile, EOFError, struct.error ...: it depends on the damage
        raise UndecodableImage(f"{quoted(info.filename)} cannot be unpacked: {error}.") from error


def _list_tar(content: bytes | memoryview, max_members: int) -> list[Member]:
    view = memoryview(content)
    members = []
    try:
        with tarfile.open(fileobj=BytesIO(content), mode="r:") as archive:
            for number, info in enumerate(archive, start=1):
                _check_count(number, 2 * max_members)
                if info.isreg() and not info.issparse():
                    data = view[info.offset_data : info.offset_data + info.size]
                    members.append(Member(info.name, info.size, partial(bytes, data), partial(_take_first, data)))
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{len(content)} bytes are not a complete tar: {error}.") from error
    return members


def _take_first(data: memoryview, max_bytes: int) -> memoryview:
    return data[:max_bytes]


def _is_clutter(part: str) -> bool:
    """Return whether macOS or a file manager added this part of a path to the archive."""
    return part == "__MACOSX" or (part.startswith(".") and part != "..")


def _check_count(count: int, limit: int) -> None:
    """Raise TooManyImages where an archive has more than `limit` members."""
    if count > limit:
        raise TooManyImages(
            f"The archive has {count} members or more; at most {limit} are taken.", "Send it in several requests."
        )


def npy_rows(member: Member) -> list[Callable[[], Samples]]:
    """Return one function for each image of an npy file in an archive, which reads that image's pixels.

    The first call unpacks the file, for all of them. Raises what `read_npy` raises, as far as the header tells.
    """
    shape = read_header(member.head(HEADER_BYTES), member.size, check_images).shape
    images = _LazyArray(lambda: read_npy(member.read()))
    return [partial(images.row, row) for row in range(shape[0])]


class _LazyArray:
    """An array that is read on the first call of `row`, in any thread.

    Where reading fails, every call raises the same error.
    """

    def __init__(self, read: Callable[[], Samples]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._result: Samples | InvalidInput | None = None

    def row(self, row: int) -> Samples:
        with self._lock:
            if self._result is None:
                try:
                    self._result = self._read()
                except InvalidInput as error:
                    self._result = error
        if isinstance(self._result, InvalidInput):
            raise type(self._result)(self._result.message, self._result.hint)
        pixels: Samples = self._result[row]
        return pixels
