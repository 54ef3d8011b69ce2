"""Zip files that are the same for the same content, and safe names for their members."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO

# Zip's earliest date: the same files always make the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)

IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?|gif)$", re.IGNORECASE)


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files` by name, in their order; the same files give the same bytes. PNGs are stored as they are."""
    return b"".join(zip_pieces((name, iter([content])) for name, content in files.items()))


def zip_pieces(files: Iterable[tuple[str, Iterator[bytes]]]) -> Iterator[bytes]:
    """The same in pieces, from files by name whose content comes in pieces: only one of them is held at a time."""
    file = _Tail()
    with zipfile.ZipFile(file, "w") as writer:
        for name, pieces in files:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # on every system as if written on Unix
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            with writer.open(entry, "w") as content:
                for piece in pieces:
                    content.write(piece)
            yield file.take()
    yield file.take()


class _Tail(BytesIO):
    """A file of which only what was not taken yet is held: no more is written again than the last entry's header."""

    _taken = 0

    def take(self) -> bytes:
        """Everything that was written since the last time."""
        content = self.getvalue()
        self._taken += len(content)
        super().seek(0)
        self.truncate()
        return content

    def tell(self) -> int:
        return self._taken + super().tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._taken + super().seek(offset - self._taken if whence == 0 else offset, whence)


def file_stem(image_id: str) -> str:
    """A file name, without suffix, for what the client calls `image_id`: never a path, and never empty."""
    stem = re.sub(r"[^\w.-]+", "_", IMAGE_SUFFIX.sub("", image_id))
    return stem.strip("._")[:100] or "image"
