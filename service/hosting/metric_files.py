"""The files through which the processes share their Prometheus counts. If the disk is full, only counts are lost.

prometheus_client maps sparse files into memory. If the disk has no room for a page of such a file, the system ends the
process that writes to the page (SIGBUS).
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.hosting.private_names import private_names, require, require_in_code

with private_names(__name__):
    from prometheus_client import Histogram, mmap_dict, multiprocess, values

    require(mmap_dict, "_INITIAL_MMAP_SIZE", "MmapedDict")
    require(mmap_dict.MmapedDict, "_init_value", "read_value", "write_value", "read_all_values_from_file")
    require_in_code(mmap_dict.MmapedDict.__init__, "_f", "_capacity", "_used", "_positions")
    require(values, "MmapedDict", "MultiProcessValue", "ValueClass")
    require(multiprocess, "MmapedDict", "mark_process_dead")
    require_in_code(Histogram.observe, "_sum", "_buckets", "_upper_bounds")  # for service.telemetry.late_writes

HEADER_BYTES = 8

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    Base = Any
else:
    Base = mmap_dict.MmapedDict


class ReservedFile(Base):  # type: ignore[misc]
    """The counts of one process and one kind. Their file's disk space is reserved before anything is written to it.

    If there is no space for a count, it stays in memory. No other process sees it there, so /metrics lacks it.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._in_memory: dict[str, tuple[float, float]] = {}  # value and timestamp
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
        """Return the value and the timestamp of `key`; (0, 0) for a new key."""
        if key in self._in_memory:
            return self._in_memory[key]
        try:
            value: tuple[float, float] = super().read_value(key)
        except OSError:
            self._in_memory[key] = value = 0.0, 0.0
        return value

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write the value and the timestamp of `key` to the file, or to memory if the file has no room."""
        if key not in self._in_memory:
            try:
                super().write_value(key, value, timestamp)
            except OSError:
                self._in_memory[key] = value, timestamp
        else:
            self._in_memory[key] = value, timestamp

    def _init_value(self, key: str) -> None:
        """Give `key` a place in the file. Raises OSError if there is no room for it."""
        if self._f is None:
            raise OSError("there is no file")
        capacity = self._capacity
        needed = self._used + len(key.encode()) + 32  # the key's length, padding, and two doubles
        while needed > capacity:
            capacity *= 2
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)
        super()._init_value(key)

    @staticmethod
    def read_all_values_from_file(filename: str) -> Any:
        """Return the counts in a file, as the base class does; none if the file is empty."""
        if Path(filename).stat().st_size < HEADER_BYTES:
            return iter(())
        return Base.read_all_values_from_file(filename)


def _reserve(filename: str) -> None:
    """Create the file if it does not exist, and reserve its disk space. Raises OSError if there is none."""
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


def prepare() -> None:
    """Make this process write its counts to ReservedFiles, and forget the counts of processes that were killed.

    Call this before the process makes its first count.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        for module in (values, multiprocess):
            vars(module)["MmapedDict"] = ReservedFile
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            # By default every count asks the system for the id of its process, in case that is a fork.
            pid = os.getpid()
            vars(values)["ValueClass"] = values.MultiProcessValue(lambda: pid)  # type: ignore[no-untyped-call]
    forget_killed_processes()


def forget_killed_processes() -> None:
    """Remove the gauges of processes that were killed. Other processes remove their own when they end."""
    if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        names: list[str] = []
        with suppress(OSError):  # the directory does not exist, or may not be read
            names = os.listdir(directory)
        matches = (re.fullmatch(r"gauge_live\w*_(\d+)\.db", name) for name in names)
        for pid in {int(match[1]) for match in matches if match}:
            if not is_running(pid):
                with suppress(OSError):  # another process has removed the file, or this one may not
                    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def is_running(pid: int) -> bool:
    """Return whether a process of this machine has the id `pid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
