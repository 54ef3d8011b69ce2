"""Files elsewhere, by fsspec: s3://, gs://, az://, hf://, http(s)://. Only the command line reads them, no service."""

from __future__ import annotations

import glob
import re
from importlib.util import find_spec
from typing import Any

from service.errors import InvalidInput, UndecodableImage, first_line, readable

URI = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
INSTALL = 'pip install "misfit[remote]"'


def is_uri(text: str) -> bool:
    """Return whether a text names a file by scheme, as in s3://bucket/a.png."""
    return URI.match(text) is not None


def expand(uri: str) -> list[str]:
    """Return the files that a URI names: itself, those of the folder, or those that match the pattern, sorted.

    Raises InvalidInput where there are none, or where they cannot be listed.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return [uri]
    filesystem, path = _open(uri)
    try:
        if glob.has_magic(path):
            found = filesystem.glob(path)
        elif filesystem.isdir(path):
            found = filesystem.find(path)
        else:
            return [uri]
    except Exception as error:  # each store raises its own
        raise InvalidInput(f"{readable(uri)} cannot be listed: {first_line(error)}.") from error
    if not found:
        raise InvalidInput(f"{readable(uri)} holds no file.")
    return sorted(filesystem.unstrip_protocol(name) for name in found)


def read(uri: str) -> bytes:
    """Return the bytes of a file. Raises UndecodableImage."""
    try:
        filesystem, path = _open(uri)
        content: bytes = filesystem.cat_file(path)
    except InvalidInput as error:
        raise UndecodableImage(error.message, error.hint) from error
    except Exception as error:  # each store raises its own
        raise UndecodableImage(f"{readable(uri)} cannot be read: {first_line(error)}.") from error
    return content


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it. Raises InvalidInput where it is unknown or not installed."""
    if find_spec("fsspec") is None:
        raise InvalidInput(f"{readable(uri)} is not on this machine: reading it takes fsspec.", INSTALL)
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise InvalidInput(f"{readable(uri)} cannot be read: {first_line(error)}.", INSTALL) from error
    except ValueError as error:
        raise InvalidInput(f"{readable(uri)} cannot be read: {first_line(error)}.") from error
    return filesystem, path
