"""Arrays and archives in memory: npy, zip and tar, read without trusting what their headers claim."""

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
from service.images.arrays import HEADER_BYTES, _read_header, check_images, read_npy
from service.images.spec import Uint8Array


class Member(NamedTuple):
    name: str
    size: int  # bytes once unpacked
    read: Callable[[], bytes | memoryview]
    head: Callable[[int], bytes | memoryview]  # so many of the first bytes


def npy_rows(member: Member) -> list[Callable[[], Uint8Array]]:
    """Return what reads each image of an npy file in an archive, which is unpacked once the first of them is read.

    Raises as `read_npy` does for what the header says.
    """
    shape = _read_header(member.head(HEADER_BYTES), member.size, check_images).shape
    images = _Once(lambda: read_npy(member.read()))
    return [partial(images.row, row) for row in range(shape[0])]


class _Once:
    """An array that is read when it is first asked for, by whichever thread, or fails each time as it did then."""

    def __init__(self, read: Callable[[], Uint8Array]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._result: Uint8Array | InvalidInput | None = None

    def row(self, row: int) -> Uint8Array:
        with self._lock:
            if self._result is None:
                try:
                    self._result = self._read()
                except InvalidInput as error:
                    self._result = error
        if isinstance(self._result, InvalidInput):
            raise type(self._result)(self._result.message, self._result.hint)
        pixels: Uint8Array = self._result[row]
        return pixels


def read_archive(content: bytes | memoryview, max_members: int, max_bytes: int) -> list[Member]:
    """The files of a zip or an uncompressed tar in its own order, each to be unpacked when it is read.

    Raises InvalidInput for anything else, TooManyImages, or TooLarge where all of them together would
    unpack to more than `max_bytes`.
    """
    is_tar = content[257:262] == b"ustar"
    members = _tar_members(content, max_members) if is_tar else _zip_members(content, max_members)
    members = [member for member in members if not any(map(_is_clutter, PurePosixPath(member.name).parts))]
    check_count(len(members), max_members)
    if (total := sum(member.size for member in members)) > max_bytes:
        raise TooLarge(
            f"The archive unpacks to {total} bytes; at most {max_bytes} are taken.", "Send it in several requests."
        )
    return members


def _zip_members(content: bytes | memoryview, max_members: int) -> list[Member]:
    # zipfile makes an object of every directory entry: count their signatures before it gets that far.
    check_count(bytes(content).count(b"PK\x01\x02"), 2 * max_members)
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
        if not info.filename.endswith("/")  # as is_dir() has it, which fails where a name is empty
    ]


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """Return so many of the first bytes of a member."""
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UndecodableImage(
            f"{quoted(info.filename)} is encrypted, or compressed by method {info.compress_type}.",
            "Zip it without a password, stored or deflated.",
        )
    try:
        with archive.open(info) as file:
            return file.read(min(most, info.file_size))  # not past what the directory promised
    except Exception as error:  # zlib.error, BadZipFile, EOFError, struct.error ... by the kind of damage
        raise UndecodableImage(f"{quoted(info.filename)} cannot be unpacked: {error}.") from error


def _tar_members(content: bytes | memoryview, max_members: int) -> list[Member]:
    view = memoryview(content)
    members = []
    try:
        with tarfile.open(fileobj=BytesIO(content), mode="r:") as archive:
            for number, info in enumerate(archive, start=1):
                check_count(number, 2 * max_members)
                if info.isreg() and not info.issparse():
                    data = view[info.offset_data : info.offset_data + info.size]
                    members.append(Member(info.name, info.size, partial(bytes, data), partial(_first, data)))
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{len(content)} bytes are not a complete tar: {error}.") from error
    return members


def _first(data: memoryview, most: int) -> memoryview:
    return data[:most]


def _is_clutter(part: str) -> bool:
    """Whether macOS or a file manager added this to the archive."""
    return part == "__MACOSX" or (part.startswith(".") and part != "..")


def check_count(count: int, limit: int) -> None:
    if count > limit:
        raise TooManyImages(
            f"The archive has {count} members or more; at most {limit} are taken.", "Send it in several requests."
        )
