"""Servers side by side: CPU seconds of the server, images a second and waits, over the workloads of `workloads.py`.

    python tests/benchmarks/peers/compare.py --server new=. --server old=../other-worktree
    python tests/benchmarks/peers/compare.py --peers fastapi litserve --in-process

All servers run at the same time, each on ports of its own; every round measures each of them once, in turn, so that
whatever else the machine does weighs on all of them alike. A server NAME=DIRECTORY is misfit as in that worktree. The
peers run from environments of their own, which `make peers` makes. --in-process adds ONNX Runtime without a server,
below which no server can be. The table has medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import grpc
import psutil

sys.path.append(str(Path(__file__).parents[2] / "support"))
sys.path.append(str(Path(__file__).parent))
from in_process import in_process
from measurements import save
from peers import PEERS, ROOT
from serving import free_ports
from ways import MISFIT, Way
from workloads import WORKLOADS, Measurement, Workload, cpu_seconds, measure, resident_mib, sample_images

ENCODER = ROOT / "service/bundles/shapes3d/encoder.onnx"
BOOT_SECONDS, STOP_SECONDS = 120, 30
WARM_UP_SECONDS = 2.0
LINE = "| {workload} | {server} {way} | {cpu_seconds:.3f} | {images_a_second:.0f} | {p50:.0f} | {p99:.0f} |"
LIMITS = {"MISFIT_GRPC_HOST": "127.0.0.1"}


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is None where there is none, and the clients' process does the work."""

    name: str
    port: int
    grpc_port: int
    pid: int | None
    ways: dict[str, Way]


class OtherProcesses:
    """How much of the machine's CPU time processes take that are neither the servers nor this one."""

    def __init__(self, pids: list[int]) -> None:
        self._pids, self._began = pids, time.perf_counter()
        self._spent = self._spend()

    def measure_share(self) -> float:
        """Return their share since this object was made."""
        seconds = (time.perf_counter() - self._began) * (os.cpu_count() or 1)
        return max(self._spend() - self._spent, 0.0) / seconds

    def _spend(self) -> float:
        """Return the CPU seconds of all processes but the servers and this one."""
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        return busy - sum(map(cpu_seconds, [*self._pids, None]))


@contextmanager
def serve_misfit(name: str, directory: Path, scratch: Path, ports: tuple[int, int]) -> Iterator[Server]:
    """Run misfit as it is in a worktree, until the block ends; `ports` are those of HTTP and gRPC."""
    settings = {**LIMITS, "MISFIT_GRPC_PORT": str(ports[1]), "PYTHONPATH": str(directory.resolve())}
    command = [str(directory / ".venv/bin/bentoml"), "serve", "service.app:Misfit", "--host", "127.0.0.1"]
    with run_server(
        name, [*command, "--port", str(ports[0])], directory, settings, scratch, ports[0], "/readyz"
    ) as process:
        yield Server(name, *ports, process.pid, MISFIT)


@contextmanager
def serve_peer(name: str, scratch: Path, ports: tuple[int, int]) -> Iterator[Server]:
    """Run a peer from its environment, until the block ends."""
    peer, own = PEERS[name], scratch / name
    own.mkdir()
    program, *arguments = peer.command(*ports, own)
    settings = {"ENCODER": str(ENCODER)}
    command = [str(ROOT / ".venv-peers" / name / "bin" / program), *arguments]
    with run_server(name, command, own, settings, scratch, ports[0], peer.ready) as process:
        yield Server(name, *ports, process.pid, peer.ways)


@contextmanager
def run_server(
    name: str, command: list[str], directory: Path, settings: dict[str, str], scratch: Path, port: int, ready: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a directory, with `settings` as environment variables, until the block ends."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {"BENTOML_HOME": str(scratch / f"{name}.home"), "BENTOML_DO_NOT_TRACK": "true", **settings}
    with (scratch / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, env={**environment, **settings}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until_ready(process, port, ready, scratch / f"{name}.log")
        yield process
    finally:
        if process.poll() is None:
            members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.terminate()
            for member in psutil.wait_procs(members, STOP_SECONDS)[1]:
                member.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    """Poll until GET `path` answers 200. Raises TimeoutError with the end of the log."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if time.monotonic() > deadline or process.poll() is not None:
            raise TimeoutError(f"no answer at {path}; the log ends in\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def run(servers: list[Server], arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Return a row of medians for each server, way and workload."""
    rows: list[dict[str, object]] = []
    for name in arguments.workloads:
        workload = Workload.of(name)
        images = sample_images(workload.images)
        cells = {
            (server.name, way): (server, make(workload, images, server.port, server.grpc_port))
            for server in servers
            for way, make in server.ways.items()
            if not arguments.ways or way in arguments.ways
        }
        measured: dict[tuple[str, str], list[Measurement]] = {cell: [] for cell in cells}
        for number in range(1 + arguments.rounds):  # the first one warms up
            for cell, (server, connect) in list(cells.items()):
                try:
                    seconds = arguments.seconds if number else WARM_UP_SECONDS
                    result = measure(workload, connect, server.pid, seconds)
                except (RuntimeError, OSError, grpc.RpcError) as error:
                    print(f"| {name} | {' '.join(cell)} | failed: {str(error)[:100]} |", flush=True)
                    rows.append({"workload": name, "server": cell[0], "way": cell[1], "failed": str(error)[:100]})
                    del cells[cell], measured[cell]
                else:
                    measured[cell] += [result] if number else []
        for (server_name, way), results in measured.items():
            figures = {field: median(asdict(each)[field] for each in results) for field in asdict(results[0])}
            rows.append({"workload": name, "server": server_name, "way": way, **figures})
            print(LINE.format(**rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", metavar="NAME=DIRECTORY", help="default: misfit=.")
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS, help="other servers, of `make peers`")
    parser.add_argument("--in-process", action="store_true", help="ONNX Runtime without a server as well")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), help="names, or CxN: C clients of N images")
    parser.add_argument("--ways", nargs="+", help="default: all of each server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of one workload at one server")
    parser.add_argument("--port", type=int, help="the first of the ports; default: free ones")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    named = [each.partition("=")[::2] for each in arguments.server or ["misfit=."]]
    count = 2 * (len(named) + len(arguments.peers))
    ports = iter(free_ports(count) if arguments.port is None else range(arguments.port, arguments.port + count))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        servers = [
            stack.enter_context(serve_misfit(name, Path(directory), Path(scratch), (next(ports), next(ports))))
            for name, directory in named
        ]
        servers += [
            stack.enter_context(serve_peer(name, Path(scratch), (next(ports), next(ports)))) for name in arguments.peers
        ]
        if arguments.in_process:
            servers.append(Server("onnxruntime", 0, 0, None, {"in process": partial(in_process, ENCODER)}))
        print("| workload | server | CPU s per 1,000 | images/s | p50, ms | p99, ms |\n" + "| --- " * 6 + "|")
        others = OtherProcesses([server.pid for server in servers if server.pid is not None])
        rows = run(servers, arguments)
        share = others.measure_share()
        memory = {server.name: round(resident_mib(server.pid)) for server in servers if server.pid is not None}
        print(f"resident MiB after the load: {memory}")
        print(f"other processes took {share:.0%} of the machine's CPU time")
    save(arguments.out, {"rows": rows, "resident_mib": memory, "others_share": share})


if __name__ == "__main__":
    main()
