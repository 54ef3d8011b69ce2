"""A real `bentoml serve` for tests and benchmarks: booted on a free port, stopped with all its processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
# The networks in a process of their own, as where several API workers share them.
OWN_PROCESS = {"MISFIT_INFERENCE_PROCESS": "own"}
BOOT_SECONDS = 120
STOP_SECONDS = 30


@dataclass(frozen=True)
class Served:
    port: int
    grpc_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes of the services: the API's, and the networks' where they have one of their own."""
        return psutil.Process(self.process.pid).children()

    def worker(self, service: str) -> psutil.Process:
        """The process of "Inference" (with OWN_PROCESS) or "Misfit"."""
        (process,) = (child for child in self.workers if ("Inference" in child.cmdline()) == (service == "Inference"))
        return process

    def in_flight(self, unit: str = "rows") -> float:
        """ "rows" or "bytes" being worked on, as the metrics say."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"misfit_{unit}_in_flight"))

    def status(self, path: str, timeout: float = 10) -> int:
        """The status of GET `path`, 0 where nobody answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def wait_for(self, path: str, status: int) -> None:
        """Poll until GET `path` has `status`. Raises TimeoutError, with the end of the log."""
        deadline = time.monotonic() + BOOT_SECONDS
        while self.status(path) != status:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(f"no {status} from {path}; the log ends in\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def serve(
    log: Path, settings: Mapping[str, str] | None = None, ports: tuple[int, int] | None = None
) -> Iterator[Served]:
    """The service, ready, on `ports` (HTTP, gRPC) or free ones, with `settings` as environment variables."""
    port, grpc_port = ports or free_ports(2)
    settings = {"MISFIT_GRPC_HOST": "127.0.0.1", "MISFIT_GRPC_PORT": str(grpc_port), **(settings or {})}
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service.app:Misfit"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            # A home of its own: there BentoML keeps counts, which it would mix with those of every other service.
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": f"{log}.home", **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        served = Served(port, int(settings["MISFIT_GRPC_PORT"]), process, log)
        served.wait_for("/readyz", 200)
        yield served
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                member.kill()
            process.wait()
