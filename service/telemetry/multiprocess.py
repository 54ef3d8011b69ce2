"""The files through which the processes share their counts: a disk that is full costs counts, and nothing else.

prometheus_client maps sparse files into memory. Where the disk has no room for a page of one, the system ends the
process that writes to it (SIGBUS).
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import mmap_dict, multiprocess, values

# Private to prometheus_client, which has no other way to say what backs a count.
USED = ("_init_value", "read_value", "write_value", "read_all_values_from_file")
HEADER_BYTES = 8

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    Base = Any
else:
    Base = mmap_dict.MmapedDict


class ReservedFile(Base):  # type: ignore[misc]
    """The counts of one process and kind, in a file whose room is reserved before it is written to.

    Counts that find no room are kept in memory, where no other process sees them: they are missing at /metrics.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._kept: dict[str, tuple[float, float]] = {}  # value and timestamp
        try:
            if not read_mode:
                _reserve(filename)
            super().__init__(filename, read_mode)
        except OSError as error:
            if read_mode:
                raise
            logger.warning("no room for counts in %s: %s; some will be missing at /metrics", filename, error.strerror)
            self._f = None
            self._positions: dict[str, int] = {}

    def read_value(self, key: str) -> tuple[float, float]:
        """Return the value and the timestamp of `key`, which is (0, 0) the first time."""
        if key in self._kept:
            return self._kept[key]
        try:
            found: tuple[float, float] = super().read_value(key)
        except OSError:
            self._kept[key] = found = 0.0, 0.0
        return found

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if key not in self._kept:
            try:
                super().write_value(key, value, timestamp)
            except OSError:
                self._kept[key] = value, timestamp
        else:
            self._kept[key] = value, timestamp

    def _init_value(self, key: str) -> None:
        """Give `key` a place in the file. Raises OSError where there is no room for it."""
        if self._f is None:
            raise OSError("there is no file")
        capacity, most = self._capacity, self._used + len(key.encode()) + 32  # its length, padding, and two doubles
        while most > capacity:
            capacity *= 2
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)
        super()._init_value(key)

    @staticmethod
    def read_all_values_from_file(filename: str) -> Any:
        """Return the counts of a file, as its base class does; none of one that is empty."""
        if Path(filename).stat().st_size < HEADER_BYTES:
            return iter(())
        return Base.read_all_values_from_file(filename)


def _reserve(filename: str) -> None:
    """Create the file where it does not exist, and reserve its room. Raises OSError where there is none."""
    is_new = not Path(filename).exists()
    try:
        with Path(filename).open("a+b") as file:
            size = os.fstat(file.fileno()).st_size
            os.posix_fallocate(file.fileno(), 0, max(size, mmap_dict._INITIAL_MMAP_SIZE))
    except OSError:
        if is_new:
            with suppress(OSError):
                Path(filename).unlink()
        raise


def install() -> None:
    """Have every count of this process in such files. To be called before the first count is made.

    Raises RuntimeError where prometheus_client no longer has what is used here.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    missing = [name for name in USED if not hasattr(mmap_dict.MmapedDict, name)]
    missing += [module.__name__ for module in (values, multiprocess) if not hasattr(module, "MmapedDict")]
    if missing or not hasattr(mmap_dict, "_INITIAL_MMAP_SIZE"):
        raise RuntimeError(
            f"prometheus_client has no {', '.join(missing)}: service/telemetry/multiprocess.py does not know "
            "this version. Install the one of constraints.txt."
        )
    for module in (values, multiprocess):
        vars(module)["MmapedDict"] = ReservedFile
