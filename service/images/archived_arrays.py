"""Arrays of images in the npy files of an archive. A file is unpacked when the first of its images is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from service.errors import InvalidInput, quoted
from service.images.archives import Member
from service.images.arrays import HEADER_BYTES, Header, check_images, read_header, read_npy
from service.images.sample_range import Samples


def is_array(member: Member) -> bool:
    """Return whether a file is an npy file, by its name."""
    return member.name.casefold().endswith(".npy")


class ArrayHeaders:
    """The headers of the npy files of one archive. Each is unpacked and read once: that takes longer than all else."""

    def __init__(self) -> None:
        self._headers: dict[Member, Header] = {}

    def read(self, member: Member) -> Header:
        """Return the header of an npy file. Raises InvalidInput with the file's name where it is none."""
        if member not in self._headers:
            with _naming(member):
                self._headers[member] = read_header(member.head(HEADER_BYTES), member.size, lambda *_: None)
        return self._headers[member]

    def iterate_rows(self, member: Member) -> Iterator[Callable[[], Samples]]:
        """Yield one function for each image of an npy file, which reads that image's pixels.

        The first call unpacks the file, for all of them. Raises what `read_npy` raises, as far as the header tells,
        with the file's name.
        """
        header = self.read(member)
        with _naming(member):
            check_images(header.shape, header.dtype)
        images = _LazyArray(lambda: read_npy(member.read()))
        for row in range(header.shape[0]):
            yield partial(images.row, row)


@contextmanager
def _naming(member: Member) -> Iterator[None]:
    """Add the file's name to an InvalidInput that is raised within."""
    try:
        yield
    except InvalidInput as error:
        raise type(error)(f"{quoted(member.name)}: {error.message}", error.hint) from error


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
