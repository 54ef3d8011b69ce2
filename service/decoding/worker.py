"""A process that decodes images and does nothing else: python -m service.decoding.worker DESCRIPTOR NICENESS MAX_BYTES.

It takes jobs from a socket until the other end closes. The system ends it if a job uses more CPU seconds than allowed
(SIGPROF). On Linux the system also ends it as soon as the process that started it has ended.
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
# Memory of the interpreter and its libraries.
OWN_BYTES = 256 * 1024 * 1024
# Factor by which an image may exceed its estimated memory.
MARGIN = 1.5


def main(descriptor: int, niceness: int, max_bytes: int) -> None:
    """Run jobs until the connection closes. Decoding one image may take `max_bytes` of memory."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        memory_limit = OWN_BYTES + int(MARGIN * max_bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    if os.getppid() != parent:
        return
    # A stop signal reaches all processes of the service, but jobs under way are still completed.
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
            connection.send_bytes(jobs.dump_head(decoded))
            connection.send_bytes(b"" if decoded.pixels is None else decoded.pixels.tobytes())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
