"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to. It gets the name `path`, in place of a former file, when the block ends.

    Raises OSError, which names `path`, and after which no part of the file is there.
    """
    scratch = name_scratch(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        publish(scratch, path)
    except OSError as error:
        raise about(error, scratch, path) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in place of the former one. Raises OSError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, in place of the former one. Raises OSError."""
    with new_file(path) as scratch:
        scratch.write_bytes(content)


def name_scratch(path: Path) -> Path:
    """Return a path beside `path` that no other process uses. Its length does not depend on that of the name."""
    return path.with_name(f".{uuid4().hex}.tmp")


def publish(scratch: Path, path: Path) -> None:
    """Give a complete file its name. Raises OSError."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(scratch, path)


def about(error: OSError, scratch: Path, path: Path) -> OSError:
    """Return the error with `path` in place of `scratch`, a name that says nothing to a user."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if error.errno is None or (names and str(scratch) not in names):
        return error
    return OSError(error.errno, os.strerror(error.errno), str(path))
