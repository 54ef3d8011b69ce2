"""Names of files in archives: their encoding, their folders, and what is no image by its name.

A zip without the UTF-8 flag, and a tar, hold bytes that do not say how they are encoded.
"""

from __future__ import annotations

import mimetypes
import posixpath
import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath

import chardet

UTF8_FLAG = 0x800
# The field of a zip's entry with its name in UTF-8 (Info-ZIP): version 1, and the CRC-32 of the name that it replaces.
UNICODE_PATH, UNICODE_PATH_VERSION = 0x7075, 1
# What names are in where nothing says so, the likeliest first; it knows all bytes. In a zip these are the code pages of
# DOS and Windows: American, western, central European, Cyrillic, Japanese, Chinese (simplified, traditional), Korean.
ASIAN_ENCODINGS = ("cp932", "gb18030", "big5hkscs", "cp949")
LATIN_CODE_PAGES = ("cp437", "cp850", "cp852")
ZIP_ENCODINGS = (*LATIN_CODE_PAGES, "cp866", *ASIAN_ENCODINGS)
UNIX_ENCODINGS = ("latin-1", *ASIAN_ENCODINGS)
# Of a guess by a few letters. Guesses by a word of two have .005 and more.
LEAST_CONFIDENCE = 0.003
MOST_EXAMINED = 10_000  # bytes
# Words of letters that take two bytes in UTF-8.
TWO_BYTE_LETTERS = re.compile("[\u00c0-\u07ff]{2,20}")

# Folders that systems and file managers keep for themselves, and files that macOS adds for each of the user's.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
UNTOLD = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$)")
# Beside what the table of media types knows.
NO_IMAGE_SUFFIXES = {
    ".aae", ".aria2", ".bak", ".cache", ".cfg", ".ckpt", ".cls", ".conf", ".cos", ".cpg", ".ctg", ".db", ".dbf", ".dll",
    ".docx", ".dop", ".exe", ".geojson", ".hdf5", ".id", ".idx", ".info", ".ini", ".ipynb", ".jgw", ".joblib", ".jsonl",
    ".kml", ".lnk", ".lock", ".log", ".lrv", ".lst", ".mat", ".md", ".md5", ".mrk", ".names", ".nav", ".nfo", ".obs",
    ".odt", ".onnx", ".ovr", ".par2", ".parquet", ".pgw", ".pickle", ".pkl", ".pp3", ".pptx", ".prj", ".pt", ".pth",
    ".pyd", ".rec", ".rst", ".rtf", ".safetensors", ".sfv", ".sha1", ".sha256", ".sha512", ".shp", ".shx", ".sqlite",
    ".srt", ".tfrecord", ".tfw", ".thm", ".tmp", ".toml", ".torrent", ".url", ".vrt", ".wld", ".xlsx", ".xmp", ".yaml",
    ".yml",
}  # fmt: skip
NO_IMAGE_NAMES = {
    "_success", "authors", "changelog", "copying", "icon\r", "licence", "license", "makefile", "md5sums", "notice",
    "readme", "sha256sums",
}  # fmt: skip
# Windows may add a stream to the name, and keeps one of its own with what was downloaded; editors keep copies.
ADDED_FILES = re.compile(r"(thumbs|ehthumbs\w*)\.db(:.*)?|.*:zone\.identifier|.*~")
ARCHIVE_SUFFIXES = {
    ".7z", ".bz2", ".gz", ".npz", ".rar", ".tar", ".tbz", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"
}  # fmt: skip
# The standard table only: that of the system differs from machine to machine.
MEDIA_TYPES = mimetypes.MimeTypes()


def decode_zip_names(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Return the name of each entry of a zip.

    It is UTF-8 where the entry's flag or its extra field 0x7075 says so, or where it is valid UTF-8; else in the
    likeliest code page for all such names; else in code page 437, as the format says.
    """
    # The bytes of the name, which zipfile has decoded.
    raw = [b"" if entry.flag_bits & UTF8_FLAG else entry.orig_filename.encode("cp437") for entry in entries]
    stated = [
        entry.filename if entry.flag_bits & UTF8_FLAG else _find_unicode_path(entry.extra, name)
        for entry, name in zip(entries, raw, strict=True)
    ]
    unstated = iter(decode_names([name for name, text in zip(raw, stated, strict=True) if text is None], ZIP_ENCODINGS))
    return [next(unstated) if text is None else text for text in stated]


def decode_names(names: Sequence[bytes], encodings: Sequence[str]) -> list[str]:
    """Return names of one archive as text: UTF-8 where valid, the rest in the likeliest of `encodings` for all of them.

    Where none is likely they are in the first, which must know all bytes.
    """
    texts = [_try_decode(name, "utf-8") for name in names]
    rest = [name for name, text in zip(names, texts, strict=True) if text is None or _mixes_scripts(text)]
    if not rest:
        return [text for text in texts if text is not None]
    encoding = _detect_encoding(rest, encodings)
    if encoding in ASIAN_ENCODINGS:  # a short name is valid UTF-8 by chance, of letters that no such archive has
        texts = [text if text and (text.isascii() or max(text) >= "\u0800") else None for text in texts]
    return [
        (_try_decode(name, encoding) or name.decode(encodings[0])) if text is None else text
        for name, text in zip(names, texts, strict=True)
    ]


def _mixes_scripts(text: str) -> bool:
    """Return whether letters of two scripts beyond ASCII stand side by side, as where other bytes are valid UTF-8 by
    chance: the word for picture in GBK is a Greek letter and a Latin one.
    """
    return any(
        len({unicodedata.name(letter, " ").split(" ")[0] for letter in word}) > 1
        for word in TWO_BYTE_LETTERS.findall(text)
    )


def _detect_encoding(names: Sequence[bytes], encodings: Sequence[str]) -> str:
    # Suffixes are no words. Names of one archive are of one language as a rule, so that many tell more than one.
    stems = b"\n".join(posixpath.splitext(name)[0] for name in names)
    detected = chardet.detect(
        stems, max_bytes=MOST_EXAMINED, compat_names=False, include_encodings=encodings, no_match_encoding=encodings[0]
    )
    encoding = detected["encoding"]
    if encoding is None or detected["confidence"] < LEAST_CONFIDENCE:
        return encodings[0]
    if encoding in LATIN_CODE_PAGES:  # they share most letters; where one has a letter another has a line or a sign
        encoding = next(
            (page for page in LATIN_CODE_PAGES if not re.search(r"[^\x00-\x7f\w]", stems.decode(page))), encoding
        )
    return encoding if all(_try_decode(name, encoding) is not None for name in names) else encodings[0]


def _find_unicode_path(extra: bytes, name: bytes) -> str | None:
    """Return the name in an entry's extra field 0x7075, or None where there is none that belongs to `name`."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        content = extra[at + 4 : at + 4 + size]
        at += 4 + size
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


def normalise(name: str) -> str:
    """Return a path with / between its folders, also where Windows wrote it, and without "./"."""
    path = name.partition("\0")[0].replace("\\", "/")
    if not path.strip("/."):
        return ""
    return str(PurePosixPath(path)) if path.startswith("./") or "//" in f"{path}/" or "/./" in path else path


def split_suffix(name: str) -> tuple[str, str]:
    """Return the file's name at the end of a path, and its suffix, both in lower case."""
    file_name = name.rpartition("/")[2].casefold()
    return file_name, posixpath.splitext(file_name)[1]


def is_system_file(name: str) -> bool:
    """Return whether a file manager or a system added the file, by its path."""
    parts = name.casefold().split("/")
    return any(part in SYSTEM_FOLDERS or (part.startswith(".") and part not in (".", "..")) for part in parts)


def is_told(name: str) -> bool:
    """Return whether a person would miss the file: not one that macOS adds for each of theirs."""
    return not UNTOLD.search(name)


def is_no_image(name: str) -> bool:
    """Return whether the file is something else than an image, by its name: a table, a text, a film, ...

    A name that tells nothing may be an image.
    """
    file_name, suffix = split_suffix(name)
    return file_name in NO_IMAGE_NAMES or ADDED_FILES.fullmatch(file_name) is not None or _is_no_image_suffix(suffix)


@lru_cache(1024)
def _is_no_image_suffix(suffix: str) -> bool:
    if suffix in NO_IMAGE_SUFFIXES:
        return True
    media_type, _ = MEDIA_TYPES.guess_type(f"x{suffix}")
    if media_type is None or media_type == "application/octet-stream" or suffix in ARCHIVE_SUFFIXES:
        return False
    return not media_type.startswith("image/")


def is_archive(name: str) -> bool:
    """Return whether the file is an archive itself, by its name."""
    return split_suffix(name)[1] in ARCHIVE_SUFFIXES
