"""Groups of decode worker processes, each group behind one fair queue.

A worker that ends in the middle of a job is started again for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from service.decoding.jobs import Decoded, Job, load_decoded, send_job
from service.errors import InferenceUnavailable
from service.fair_queue import FairQueue

# A worker that does not answer for this many seconds is ended. If it uses CPU, its CPU limit ends it sooner.
STALLED_SECONDS = 60.0
ENDING_SECONDS = 0.5
ROOT = Path(__file__).parents[2]

logger = logging.getLogger(__name__)


class WorkerEnded(Exception):
    """A worker ended in the middle of a job.

    took_too_long  its CPU limit ended it
    was_killed     somebody else ended it (SIGKILL), perhaps the system because memory was short
    """

    def __init__(self, took_too_long: bool, was_killed: bool) -> None:
        super().__init__()
        self.took_too_long, self.was_killed = took_too_long, was_killed


class WorkerGroup:
    """Worker processes that take the jobs of one queue, earliest due first."""

    def __init__(self, workers: int, niceness: int, max_bytes: int, queue: FairQueue) -> None:
        """Make `workers` workers, which start later. `queue` must admit at most as many jobs at a time."""
        self._idle = [Worker(niceness, max_bytes) for _ in range(workers)]
        self._workers = list(self._idle)
        self._queue = queue
        self._threads = ThreadPoolExecutor(workers, "decode")
        self._last_done = -math.inf

    def idle_seconds(self) -> float:
        """Return how long ago a worker last did a job."""
        return time.monotonic() - self._last_done

    def start(self) -> None:
        """Start all workers."""
        # In threads of the pool, which live on: the system ends a worker together with the thread that started it.
        for worker in self._workers:
            self._threads.submit(worker.start)

    def close(self) -> None:
        """End all workers at once."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()

    async def run(self, job: Job, units: int, due: float) -> Decoded:
        """Run the job, which takes `units` of the queue's capacity, in a worker. Raises WorkerEnded."""
        acquired = await self._queue.acquire(units, due)
        worker = self._idle.pop()
        future = asyncio.get_running_loop().run_in_executor(self._threads, worker.do, job)

        def free(future: asyncio.Future[Decoded]) -> None:
            self._idle.append(worker)
            self._queue.release(acquired)
            if not future.cancelled():
                future.exception()  # asyncio logs an exception that nobody retrieves, and the caller may be gone

        # The caller may be cancelled, but the worker is busy until the job is done.
        future.add_done_callback(free)
        decoded = await asyncio.shield(future)
        self._last_done = time.monotonic()
        return decoded


class Worker:
    """One process, started on first use, and again after it has ended."""

    def __init__(self, niceness: int, max_bytes: int) -> None:
        self._arguments = [str(niceness), str(max_bytes)]
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_closed, self._starting = False, threading.Lock()

    def start(self) -> Connection:
        """Start the process unless it runs, and return the connection to it. Raises InferenceUnavailable."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        with self._starting:
            if self._connection is None:
                if self._is_closed:
                    raise InferenceUnavailable("The service is stopping.", "Send it again.")
                try:
                    self._start()
                except OSError as error:
                    raise InferenceUnavailable(
                        f"No process can be started to decode images: {error.strerror}.",
                        "Send it again a little later.",
                    ) from error
            assert self._connection is not None
            return self._connection

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-m", "service.decoding.worker", str(theirs.fileno()), *self._arguments]
            # A worker decodes on one thread. Without this, numpy would start more.
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, cwd=ROOT)
            self._connection = Connection(ours.detach())

    def do(self, job: Job) -> Decoded:
        """Run the job and wait for its result. Call this in a thread. Raises WorkerEnded."""
        connection = self.start()
        try:
            send_job(connection, job)
            if not connection.poll(STALLED_SECONDS):
                raise EOFError
            head = connection.recv_bytes()
            return load_decoded(head, connection.recv_bytes(), job.shape)
        except (EOFError, OSError, ValueError, KeyError) as error:
            status = self._end()
            logger.warning("a decode worker ended with status %s in the middle of %d images", status, len(job.contents))
            raise WorkerEnded(status == -signal.SIGPROF, status == -signal.SIGKILL) from error

    def kill(self) -> None:
        """End the process at once and start no other; a thread that waits for its result gets WorkerEnded."""
        with self._starting:
            self._is_closed, process = True, self._process
        if process is not None:
            process.kill()
            process.wait()

    def _end(self) -> int | None:
        """End the process, if there is one, and return its status if it has ended by itself."""
        process, connection, self._process, self._connection = self._process, self._connection, None, None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        try:
            return process.wait(ENDING_SECONDS)  # if it has ended by itself, its status says why
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
