"""Scale: images a second and CPU of one pod, by the CPUs that it may use and by its API workers.

    python tests/benchmarks/peers/scale.py

Servers run one after the other, each on the first CPUs of this machine: misfit counts its threads by its affinity. The
clients use the others, or the same where there are no others. Images a second mean something only on a machine that
does nothing else. CPU seconds hold on any.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "support"))
sys.path.append(str(Path(__file__).parent))
from compare import LINE, serve_misfit
from measurements import save
from serving import free_ports
from ways import MISFIT
from workloads import WORKLOADS, Workload, measure, resident_mib, sample_images

WAYS = ("/encode", "/score")


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables until the block ends."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(cpus: int, workers: int, arguments: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Return a row of medians for each workload and way, of a server with so many CPUs and API workers."""
    mine = sorted(os.sched_getaffinity(0))
    name, rows = f"{cpus} CPU, {workers} API", []
    os.sched_setaffinity(0, mine[:cpus])  # the server inherits it
    with (
        environment(BENTOML_CONFIG_OPTIONS=f"services.Misfit.workers={workers}"),
        serve_misfit(name.replace(" ", "_"), Path(), scratch, tuple(free_ports(2))) as server,
    ):
        os.sched_setaffinity(0, mine[cpus:] or mine)
        for workload_name in arguments.workloads:
            workload = Workload.of(workload_name)
            images = sample_images(workload.images)
            for way in WAYS:
                connect = MISFIT[way](workload, images, server.port, server.grpc_port)
                results = [
                    measure(workload, connect, server.pid, arguments.seconds) for _ in range(1 + arguments.rounds)
                ][1:]  # the first one warms up
                figures = {field: median(asdict(each)[field] for each in results) for field in asdict(results[0])}
                rows.append({"workload": workload_name, "server": name, "way": way, **figures})
                print(LINE.format(**rows[-1]), flush=True)
        memory = round(resident_mib(server.pid))
    os.sched_setaffinity(0, mine)
    return [{**row, "cpus": cpus, "workers": workers, "resident_mib": memory} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0))}))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workloads", nargs="+", default=["W1x4", "W2", "W4"], choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of one workload")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    print("| workload | server | CPU s per 1,000 | images/s | p50, ms | p99, ms |\n" + "| --- " * 6 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            row
            for cpus in arguments.cpus
            for workers in arguments.workers
            for row in run(cpus, workers, arguments, Path(scratch))
        ]
    save(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
