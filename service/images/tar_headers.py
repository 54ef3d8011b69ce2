"""The headers of an uncompressed tar, as tarfile reads them, less those that would take it very long.

tarfile looks through an extended header (pax) by patterns that take the square of its length. It also gives the
records of every global header to each entry that comes later, and goes back where a size is negative.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, Self

from service.errors import UndecodableImage, quoted

BLOCK = 512
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
# One record of an extended header: "LENGTH KEYWORD=VALUE\n", its length in decimal digits.
RECORD = re.compile(rb"([1-9]\d{0,8}) [^=]")
MOST_RECORDS, MOST_GLOBAL_RECORDS = 10_000, 100
# Digits in a row: hashes have fewer, and so has a time in nanoseconds.
MANY_DIGITS = re.compile(rb"\d{256}")
NOT_ZERO = re.compile(rb"[^\0]")


def is_tar(content: bytes | memoryview) -> bool:
    """Return whether the file begins as a tar does, of any age, or is one without files."""
    head = bytes(content[:BLOCK])
    if head[257:262] == b"ustar":
        return True
    if not head[148:156].strip(b" \0").isdigit():  # of the checksum, which every header has
        return len(content) >= 2 * BLOCK and not any(content[: 2 * BLOCK])
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # which looks at the checksum
    except tarfile.HeaderError:
        return False
    return True


def read_headers(content: bytes | memoryview) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of a tar, and of tars that are written behind it, as by cat. Raises what tarfile does."""
    view, file, start = memoryview(content), BytesIO(content), 0
    while True:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", tarinfo=_CheckedInfo) as archive:
            for info in archive:
                if info.size < 0 or archive.offset < info.offset_data:  # it would lead back to what was read
                    raise tarfile.ReadError(f"the size at byte {info.offset} is negative")
                yield info
            end = archive.offset
        if any(view[end : end + BLOCK]):  # tarfile stops in silence where a header is not one
            raise tarfile.ReadError(f"the header at byte {end} is damaged")
        following = NOT_ZERO.search(view, end)
        if following is None or not is_tar(view[following.start() :]):
            return
        start = following.start()


def read_sparse(
    name: str, data: memoryview, parts: Sequence[tuple[int, int]], size: int, max_bytes: int | None = None
) -> bytes:
    """Return a file of `size` bytes, of which `data` holds only the parts (offset, size); the rest is 0.

    Raises UndecodableImage where the parts lie outside the file or the data.
    """
    content, position = bytearray(size), 0
    for offset, length in parts:
        if not (0 <= length <= len(data) - position and 0 <= offset <= size - length):
            raise UndecodableImage(f"{quoted(name)} is sparse, and its map is damaged.", "Write the tar without -S.")
        content[offset : offset + length] = data[position : position + length]
        position += length
    return bytes(content[:max_bytes])


class _CheckedInfo(tarfile.TarInfo):
    """An entry whose extended header is looked at before tarfile does."""

    def _proc_member(self, archive: Any) -> Self:
        """Read what belongs to the entry: tarfile calls this for every header, and lets it be overridden."""
        if self.type in EXTENDED:
            start = archive.fileobj.tell()
            _check_extended(archive.fileobj.read(max(self.size, 0)))
            archive.fileobj.seek(start)
        entry: Self = super()._proc_member(archive)  # type: ignore[misc]  # typeshed leaves it out
        if len(archive.pax_headers) > MOST_GLOBAL_RECORDS:
            raise tarfile.ReadError(f"it has more than {MOST_GLOBAL_RECORDS} global records")
        return entry


def _check_extended(header: bytes) -> None:
    """Raise ReadError unless an extended header is made of records one after another, none of them of many digits."""
    if MANY_DIGITS.search(header):
        raise tarfile.ReadError("an extended header holds a number of hundreds of digits")
    at, count = 0, 0
    while at < len(header):
        record = RECORD.match(header, at)
        end = at + int(record[1]) if record else 0
        if record is None or end <= record.end() or header[end - 1 : end] != b"\n" or b"=" not in header[at:end]:
            raise tarfile.ReadError("an extended header is damaged")
        at, count = end, count + 1
    if count > MOST_RECORDS:
        raise tarfile.ReadError(f"an extended header has {count} records")
