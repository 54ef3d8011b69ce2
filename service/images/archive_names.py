"""Names of files in archives: their encoding, their folders, and what is no image by its name.

A zip without the UTF-8 flag, and a tar, hold bytes that do not say how they are encoded.
"""

from __future__ import annotations

import mimetypes
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath

UTF8_FLAG = 0x800
# The field of a zip's entry with its name in UTF-8 (Info-ZIP): version 1, and the CRC-32 of the name that it replaces.
UNICODE_PATH, UNICODE_PATH_VERSION = 0x7075, 1
JAPANESE = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uffef"

# Folders that systems and file managers keep for themselves, and files that macOS adds for each of the user's.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
UNTOLD = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$)")
# Beside what the table of media types knows.
NO_IMAGE_SUFFIXES = {
    ".bak", ".cfg", ".conf", ".db", ".docx", ".ini", ".ipynb", ".jsonl", ".lnk", ".log", ".mat", ".md", ".md5",
    ".names", ".nfo", ".odt", ".parquet", ".pkl", ".pptx", ".rst", ".rtf", ".sha1", ".sha256", ".tmp", ".toml", ".url",
    ".xlsx", ".yaml", ".yml",
}  # fmt: skip
NO_IMAGE_NAMES = {
    "authors", "changelog", "copying", "icon\r", "licence", "license", "makefile", "md5sums", "notice", "readme",
    "sha256sums",
}  # fmt: skip
# Windows may add a stream to the name.
THUMBNAILS = re.compile(r"(thumbs|ehthumbs\w*)\.db(:.*)?")
ARCHIVE_SUFFIXES = {
    ".7z", ".bz2", ".gz", ".npz", ".rar", ".tar", ".tbz", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"
}  # fmt: skip
# The standard table only: that of the system differs from machine to machine.
MEDIA_TYPES = mimetypes.MimeTypes()


def decode_zip_names(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Return the name of each entry of a zip.

    It is UTF-8 where the entry's flag or its extra field 0x7075 says so, or where it is valid UTF-8; else code page
    932 where it reads as Japanese; else code page 437, as the format says.
    """
    # The bytes of the name, which zipfile has decoded.
    raw = [b"" if entry.flag_bits & UTF8_FLAG else entry.orig_filename.encode("cp437") for entry in entries]
    stated = [
        entry.filename if entry.flag_bits & UTF8_FLAG else _find_unicode_path(entry.extra, name)
        for entry, name in zip(entries, raw, strict=True)
    ]
    unstated = iter(decode_names([name for name, text in zip(raw, stated, strict=True) if text is None], "cp437"))
    return [next(unstated) if text is None else text for text in stated]


def decode_names(names: Sequence[bytes], other: str) -> list[str]:
    """Return names of one archive as text: UTF-8 where valid, else code page 932 if all of the rest read as Japanese,
    else the encoding `other`, which must know all bytes.
    """
    texts = [_try_decode(name, "utf-8") for name in names]
    rest = [name for name, text in zip(names, texts, strict=True) if text is None]
    encoding = "cp932" if all(map(_reads_as_japanese, rest)) else other
    return [name.decode(encoding) if text is None else text for name, text in zip(names, texts, strict=True)]


def _find_unicode_path(extra: bytes, name: bytes) -> str | None:
    """Return the name in an entry's extra field 0x7075, or None where there is none that belongs to `name`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(content) > 5:
            version, checksum = struct.unpack_from("<BL", content)
            if version == UNICODE_PATH_VERSION and checksum == zlib.crc32(name):
                return _try_decode(content[5:], "utf-8")
    return None


def _try_decode(name: bytes, encoding: str) -> str | None:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError:
        return None


def _reads_as_japanese(name: bytes) -> bool:
    """Return whether a name in code page 932 is kana and kanji.

    Nearly all bytes are valid in it. In a western name an accented letter stands alone and takes the next letter with
    it, so that one character of two bytes, the second of them ASCII, is no sign of Japanese.
    """
    text = _try_decode(name, "cp932")
    if text is None or re.search(rf"[^\x00-\x7f{JAPANESE}]", text):
        return False
    return bool(re.search(f"[{JAPANESE}]{{2}}", text) or re.search(rb"[\x80-\xff]{2}", name))


def normalise(name: str) -> str:
    """Return a path with / between its folders, also where Windows wrote it, and without "./"."""
    path = name.partition("\0")[0].replace("\\", "/")
    return str(PurePosixPath(path)) if path.strip("/.") else ""


def is_system_file(name: str) -> bool:
    """Return whether a file manager or a system added the file, by its path."""
    parts = PurePosixPath(name).parts
    return any((part.startswith(".") and part != "..") or part.casefold() in SYSTEM_FOLDERS for part in parts)


def is_told(name: str) -> bool:
    """Return whether a person would miss the file: not one that macOS adds for each of theirs."""
    return not UNTOLD.search(name)


def is_no_image(name: str) -> bool:
    """Return whether the file is something else than an image, by its name: a table, a text, a film, ...

    A name that tells nothing may be an image.
    """
    file_name = PurePosixPath(name).name.casefold()
    suffix = PurePosixPath(file_name).suffix
    if suffix in NO_IMAGE_SUFFIXES or file_name in NO_IMAGE_NAMES or THUMBNAILS.fullmatch(file_name):
        return True
    media_type, _ = MEDIA_TYPES.guess_type(file_name)
    if media_type is None or media_type == "application/octet-stream" or suffix in ARCHIVE_SUFFIXES:
        return False
    return not media_type.startswith("image/")


def is_archive(name: str) -> bool:
    """Return whether the file is an archive itself, by its name."""
    return PurePosixPath(name).suffix.casefold() in ARCHIVE_SUFFIXES
