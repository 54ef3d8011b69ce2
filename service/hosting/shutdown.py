"""The order of shutdown: the process of the networks stops after the API workers that call it.

The supervisor sends its signal to all processes at once. So each API worker holds a shared lock as long as it lives.
When the networks' process gets the signal, it first waits until the lock is free. The system frees the locks of
every process that ends, even of one that is killed.

The networks' process holds a lock as well. By it the API workers know whether that process lives. Its listening socket
does not tell, as the socket outlives the process.

The supervisor removes the Unix sockets between its processes before any process has stopped. So the API workers keep
open descriptors of the sockets, and connect through those.

A supervisor that is killed sends no signals. Then the system sends SIGTERM to each worker, and they stop in the same
order.
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
# The environment variable with the supervisor's process id. The workers inherit it.
SUPERVISOR = "_MISFIT_SUPERVISOR"
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
WATCH_SECONDS = 1.0

Handler = Callable[[int, FrameType | None], Any]


def open_lock(addresses: Mapping[str, str], name: str) -> int | None:
    """Open the lock `name` in the private directory of the sockets at `addresses`.

    Return its descriptor, or None if `addresses` has no sockets.
    """
    sockets = [Path(address.removeprefix(SCHEME)) for address in addresses.values() if address.startswith(SCHEME)]
    return os.open(sockets[0].with_name(name), os.O_RDWR | os.O_CREAT, 0o600) if sockets else None


def hold_lock(lock: int) -> None:
    """Hold the lock until this process ends."""
    fcntl.flock(lock, fcntl.LOCK_SH)


class Watch:
    """Watches whether the process that holds a lock has ended."""

    def __init__(self, lock: int | None) -> None:
        """Watch the process that holds `lock`. Without a lock, `has_ended` is always false."""
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


def name_by_descriptor(addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the same addresses, with each Unix socket named by a descriptor of this process.

    Such an address stays valid after the socket's file is removed. On systems other than Linux, nothing changes.
    """
    if not hasattr(os, "O_PATH"):
        return dict(addresses)
    return {
        name: f"{SCHEME}/proc/self/fd/{os.open(address.removeprefix(SCHEME), os.O_PATH)}"
        if address.startswith(SCHEME)
        else address
        for name, address in addresses.items()
    }


def stop_after_holders(lock: int) -> None:
    """Make this process obey SIGTERM and SIGINT only once nobody holds the lock.

    Call this in the main thread, after the server has installed its handlers.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        stop = signal.getsignal(number)
        assert callable(stop), "the server has installed its handlers"
        signal.signal(number, partial(_stop_later, stop, lock))


def _stop_later(stop: Handler, lock: int, number: int, frame: FrameType | None) -> None:
    """Wait for the lock in a thread, since a handler must not block the event loop, then call the handler `stop`."""

    def wait_then_stop() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stop(number, None)

    threading.Thread(target=wait_then_stop, daemon=True).start()


def name_supervisor() -> None:
    """Store this process's id as the supervisor's, for `end_with_supervisor`. Call this before any worker starts."""
    os.environ[SUPERVISOR] = str(os.getpid())


def end_with_supervisor() -> None:
    """Make this process get SIGTERM once its supervisor has ended in any way. Call this in the main thread.

    If no supervisor has called `name_supervisor`, nothing happens. Raises OSError if the system refuses.
    """
    if (supervisor := os.environ.get(SUPERVISOR)) is None:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != int(supervisor):  # the supervisor ended before the call of prctl
            signal.raise_signal(signal.SIGTERM)
    else:
        threading.Thread(target=_watch_supervisor, args=(int(supervisor),), daemon=True).start()


def _watch_supervisor(supervisor: int) -> None:
    """Send this process SIGTERM once its parent is no longer `supervisor`."""
    while os.getppid() == supervisor:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
