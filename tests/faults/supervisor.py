"""The service as Kubernetes runs it: no process is started again inside, and a pod that is not alive is replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serving import Served, free_ports, serve

# With it BentoML behaves as in its images: a worker that dies is not started again.
CONTAINER = {"BENTOML_CONTAINERIZED": "true"}
# As in k8s/base/deployment.yaml, but more often.
PERIOD_SECONDS, PROBE_TIMEOUT_SECONDS, FAILURES = 1.0, 5.0, 3
WAIT_SECONDS = 180


class Supervisor:
    """Starts the service, and again whenever /livez has failed three times in a row or its process has ended."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._directory, self._settings = directory, {**CONTAINER, **settings}
        self._ports = tuple(free_ports(2))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.served: Served
        self.starts = 0
        self.failed_probes: list[int] = []  # what /livez answered where it was not 200; 0 is no answer

    def start(self) -> None:
        self._thread.start()
        self.wait_for_start(1)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for_start(self, number: int) -> None:
        """Until the service has become ready for the `number`-th time."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.starts < number:
            assert self._thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline, f"start {number} did not come; /livez said {self.failed_probes}"
            time.sleep(0.1)

    def _run(self) -> None:
        while not self._stopped.is_set():
            log = self._directory / f"log{self.starts}"
            with serve(log, self._settings, ports=self._ports) as self.served:
                self.starts += 1
                self._watch()

    def _watch(self) -> None:
        failures = 0
        while failures < FAILURES and not self._stopped.wait(PERIOD_SECONDS):
            status = self.served.status("/livez", PROBE_TIMEOUT_SECONDS)
            failures = 0 if status == 200 else failures + 1
            if status != 200:
                self.failed_probes.append(status)
            if self.served.process.poll() is not None:
                return


@contextmanager
def supervised(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Supervisor]:
    supervisor = Supervisor(directory, settings or {})
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
