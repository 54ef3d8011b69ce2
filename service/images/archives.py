"""Arrays and archives in memory: npy, zip and tar, read without trusting what their headers claim."""

from __future__ import annotations

import tarfile
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput, ShapeMismatch, TooLarge, TooManyImages, UndecodableImage, quoted
from service.images.decode import Uint8Array

# Of an npy file, which hold its header.
HEADER_BYTES = 64 * 1024
# Of an array without content: four such axes multiply to less than 2**63, which numpy wants even where one is 0.
LONGEST_EMPTY_AXIS = 2**15


class Member(NamedTuple):
    name: str
    size: int  # bytes once unpacked
    read: Callable[[], bytes | memoryview]
    head: Callable[[int], bytes | memoryview]  # so many of the first bytes


def read_npy(content: bytes | memoryview) -> Uint8Array:
    """The images in an npy file, uint8 (N, H, W) or (N, H, W, C), as a view of `content`.

    Raises ShapeMismatch for any other rank or type, InvalidInput for what is not a complete npy file.
    """
    return _read_npy(content, check_images)


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


def read_tensor(shape: tuple[int, ...], content: bytes) -> Uint8Array:
    """The images of that shape, (N, H, W) or (N, H, W, C), whose pixels are `content` in C order, as a view.

    Raises ShapeMismatch for any other shape, InvalidInput where `content` has another length.
    """
    check_images(shape, np.dtype(np.uint8))
    _check_length(shape, np.dtype(np.uint8), len(content), "tensor", "Send images.shape and images.tobytes().")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_npy_latents(content: bytes | memoryview) -> NDArray[np.float64]:
    """The latents in an npy file, float32 or float64 (N, L). Raises as `read_npy` does."""
    return _read_npy(content, _check_latents).astype(np.float64)


def _read_npy(
    content: bytes | memoryview, check: Callable[[tuple[int, ...], np.dtype[np.generic]], None]
) -> NDArray[Any]:
    """Nothing is unpickled, and no memory is set aside for a size that the header only claims."""
    header = _read_header(content[:HEADER_BYTES], len(content), check)
    values = np.frombuffer(content, dtype=header.dtype, offset=header.length)
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[np.generic]
    length: int  # bytes


def _read_header(
    head: bytes | memoryview, length: int, check: Callable[[tuple[int, ...], np.dtype[np.generic]], None]
) -> _Header:
    """Return what the first HEADER_BYTES of an npy file of `length` bytes say, if `check` and the length agree."""
    header = BytesIO(head)
    try:
        version = np.lib.format.read_magic(header)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(header)
    except Exception as error:  # ValueError, KeyError, TokenError, RecursionError ... by the kind of damage
        raise InvalidInput(f"{length} bytes are not an npy file: {error}.", "Write it with numpy.save.") from error
    if any(type(axis) is not int for axis in shape):  # numpy takes True for 1 here, but not where it reshapes
        raise InvalidInput(f"The npy file announces shape {quoted(shape)}, expected whole numbers.", "Use numpy.save.")
    check(shape, dtype)
    hint = "It was cut short, or the header was changed: write it again with numpy.save."
    _check_length(shape, dtype, length - header.tell(), "npy file", hint)
    return _Header(shape, fortran_order, dtype, header.tell())


def _check_length(shape: tuple[int, ...], dtype: np.dtype[np.generic], length: int, what: str, hint: str) -> None:
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if length != expected or min(shape) < 0 or (length == 0 and max(shape) > LONGEST_EMPTY_AXIS):
        raise InvalidInput(
            f"The {what} announces shape {quoted(shape)}, which takes {quoted(expected)} bytes, but holds {length}.",
            hint,
        )


def _check_latents(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if dtype not in (np.float32, np.float64):
        raise ShapeMismatch(f"The array has dtype {dtype}, expected float32 or float64.", "Send the encoder's means.")
    if len(shape) != 2:
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}, expected (N, L).", "A single latent vector takes z[None]."
        )


def check_images(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if dtype != np.uint8:
        raise ShapeMismatch(
            f"The array has dtype {dtype}, expected uint8.",
            "Send grey levels 0..255: (images * 255).round().astype(numpy.uint8) if they are floats in 0..1.",
        )
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 2, 3, 4)):
        channels_first = len(shape) == 4 and shape[1] in (1, 3, 4)
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}, expected (N, H, W) or (N, H, W, C) with 1 to 4 channels.",
            "Move the channels last: images.transpose(0, 2, 3, 1)."
            if channels_first
            else "Stack the images along a first axis; a single one takes image[None].",
        )
    if len(shape) == 3 and shape[2] <= 4:
        raise ShapeMismatch(
            f"The array has shape {quoted(shape)}, which reads as grey images at most 4 pixels wide.",
            "For one colour image add the first axis: image[None].",
        )
    if shape[1] * shape[2] == 0:
        raise ShapeMismatch(f"The array has shape {quoted(shape)}: images without a pixel.")


def read_archive(content: bytes | memoryview, max_members: int, max_bytes: int) -> list[Member]:
    """The files of a zip or an uncompressed tar in its own order, each to be unpacked when it is read.

    Raises InvalidInput for anything else, TooManyImages, or TooLarge where all of them together would
    unpack to more than `max_bytes`.
    """
    is_tar = content[257:262] == b"ustar"
    members = _tar_members(content, max_members) if is_tar else _zip_members(content, max_members)
    members = [member for member in members if not any(map(_is_clutter, PurePosixPath(member.name).parts))]
    _check_count(len(members), max_members)
    if (total := sum(member.size for member in members)) > max_bytes:
        raise TooLarge(
            f"The archive unpacks to {total} bytes; at most {max_bytes} are taken.", "Send it in several requests."
        )
    return members


def _zip_members(content: bytes | memoryview, max_members: int) -> list[Member]:
    # zipfile makes an object of every directory entry: count their signatures before it gets that far.
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
                _check_count(number, 2 * max_members)
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


def _check_count(count: int, limit: int) -> None:
    if count > limit:
        raise TooManyImages(
            f"The archive has {count} members or more; at most {limit} are taken.", "Send it in several requests."
        )
