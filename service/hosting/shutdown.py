"""Stopping in order: the supervisor signals all processes at once, but the networks must outlive the calls on them.

Each API worker holds a shared lock for as long as it lives. The networks' process, told to stop, first waits for the
lock to be free. The system frees the lock of a process that dies, however it dies: so the API workers know by a lock
of the networks' process whether that one lives, whose listening socket outlives it.

The supervisor also removes the sockets between its processes, before any has stopped: an open descriptor keeps them.

A supervisor that is killed signals nobody: then each worker gets SIGTERM from the system, and they stop in order.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

API, INFERENCE = "api.lock", "inference.lock"
SCHEME = "file://"
# An environment variable that the workers inherit: the supervisor's process id.
SUPERVISOR = "_MISFIT_SUPERVISOR"
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
WATCH_SECONDS = 1.0

Handler = Callable[[int, FrameType | None], Any]


def open_lock(addresses: Mapping[str, str], name: str) -> int | None:
    """Open the lock `name` in the private directory of the sockets at `addresses`; return None where there are no
    sockets.
    """
    sockets = [Path(address.removeprefix(SCHEME)) for address in addresses.values() if address.startswith(SCHEME)]
    return os.open(sockets[0].with_name(name), os.O_RDWR | os.O_CREAT, 0o600) if sockets else None


def hold(lock: int) -> None:
    """Hold the lock until this process ends."""
    fcntl.flock(lock, fcntl.LOCK_SH)


class Watch:
    """Whether the process that held a lock has ended."""

    def __init__(self, lock: int | None) -> None:
        """Without a lock no process has ended."""
        self._lock, self._was_held = lock, False

    def has_ended(self) -> bool:
        """Return whether the lock was held and nobody holds it any more."""
        if self._lock is None:
            return False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._was_held = True
            return False
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return self._was_held


def lasting(addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the same addresses, with Unix sockets named by descriptors of this process (on Linux)."""
    if not hasattr(os, "O_PATH"):
        return dict(addresses)
    return {
        name: f"{SCHEME}/proc/self/fd/{os.open(address.removeprefix(SCHEME), os.O_PATH)}"
        if address.startswith(SCHEME)
        else address
        for name, address in addresses.items()
    }


def stop_after_holders(lock: int) -> None:
    """Have SIGTERM and SIGINT, once they come, wait until nobody holds the lock. To be called in the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        stop = signal.getsignal(number)
        assert callable(stop), "the server has installed its handlers"
        signal.signal(number, partial(_defer, stop, lock))


def _defer(stop: Handler, lock: int, number: int, frame: FrameType | None) -> None:
    def wait_then_stop() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stop(number, None)

    threading.Thread(target=wait_then_stop, daemon=True).start()


def name_supervisor() -> None:
    """Let the workers that this process starts know whose end is theirs. To be called before it starts them."""
    os.environ[SUPERVISOR] = str(os.getpid())


def end_with_supervisor() -> None:
    """Have this process get SIGTERM once its supervisor has ended, however it did. To be called in the main thread.

    Without a supervisor that has named itself, nothing happens. Raises OSError where the system refuses.
    """
    if (supervisor := os.environ.get(SUPERVISOR)) is None:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != int(supervisor):  # it ended before the system was asked
            signal.raise_signal(signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(int(supervisor),), daemon=True).start()


def _watch(supervisor: int) -> None:
    while os.getppid() == supervisor:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
