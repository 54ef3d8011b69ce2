"""Zip files that are byte for byte the same for the same content, and safe file names for them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO

# The earliest date that a zip can hold. A fixed date keeps equal files equal.
EPOCH = (1980, 1, 1, 0, 0, 0)

IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?|gif)$", re.IGNORECASE)


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of `files` by name, in their order. Equal files give equal bytes. PNGs are stored uncompressed."""
    return b"".join(zip_pieces((name, iter([content])) for name, content in files.items()))


def zip_pieces(files: Iterable[tuple[str, Iterator[bytes]]]) -> Iterator[bytes]:
    """Yield the same zip in pieces. Each file is a name and its content in pieces; one piece is in memory at a time."""
    file = _UntakenBytes()
    with zipfile.ZipFile(file, "w") as writer:
        for name, pieces in files:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system: Unix
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            with writer.open(entry, "w") as content:
                for piece in pieces:
                    content.write(piece)
            yield file.take()
    yield file.take()


class _UntakenBytes(BytesIO):
    """A file that holds only what `take` has not returned yet.

    That is enough for ZipFile, which rewrites nothing before the last entry's header.
    """

    _taken_bytes = 0

    def take(self) -> bytes:
        """Return everything that was written since the last call."""
        content = self.getvalue()
        self._taken_bytes += len(content)
        super().seek(0)
        self.truncate()
        return content

    def tell(self) -> int:
        return self._taken_bytes + super().tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._taken_bytes + super().seek(offset - self._taken_bytes if whence == 0 else offset, whence)


def file_stem(image_id: str) -> str:
    """Return a file name without suffix for the client's `image_id`. It is never a path and never empty."""
    stem = re.sub(r"[^\w.-]+", "_", IMAGE_SUFFIX.sub("", image_id))
    return stem.strip("._")[:100] or "image"
