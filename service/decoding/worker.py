"""A process that decodes images and does nothing else: python -m service.decoding.worker DESCRIPTOR NICENESS MAX_BYTES.

It takes jobs from a socket until the socket's other end is closed. The system ends it when a job takes more CPU
seconds than it may (SIGPROF), and on Linux as soon as the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection

from service.decoding import jobs

PR_SET_PDEATHSIG = 1
# Of the interpreter and its libraries.
OWN_BYTES = 256 * 1024 * 1024
# By how much the estimate of what an image takes may be wrong.
MARGIN = 1.5


def main(descriptor: int, niceness: int, max_bytes: int) -> None:
    """Do jobs until there are no more. `max_bytes` is what decoding one image may take."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        most = OWN_BYTES + int(MARGIN * max_bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if os.getppid() != parent:
        return
    # Whoever stops the service signals all of its processes: jobs that were taken are still to be done.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.nice(niceness)
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, ConnectionError):
        while True:
            job = jobs.receive_job(connection)
            signal.setitimer(signal.ITIMER_PROF, job.seconds)
            decoded = jobs.run(job)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(jobs.head_of(decoded))
            connection.send_bytes(b"" if decoded.pixels is None else decoded.pixels.tobytes())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
