"""Photographs over HTTP: misfit beside LitServe with the same backbone, both from JPEGs of 640 x 480 pixels.

    python tests/benchmarks/peers/photographs.py FOLDER --bundle PATH [--workloads 16x1 4x16 1x350] [--out JSON]

PATH is a bundle that `misfit learn` has written, FOLDER holds the photographs that are sent. CxN are C clients that
send requests of N photographs. Both servers run at the same time, and every round measures each once, as in
`compare.py`. The table has medians over the rounds.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "support")]
import bodies
from compare import WARM_UP_SECONDS, OtherProcesses, run_server
from measurements import save
from peers import APPS, ROOT
from photograph_rate import write_photographs
from serving import free_ports
from ways import Connect, http_client
from workloads import Measurement, Workload, measure

BACKBONE = ROOT / "service/backbones/efficientnet_lite0/features.onnx"
LINE = "| {workload} | {server} | {cpu_seconds:.1f} | {images_a_second:.0f} | {p50:.0f} | {p99:.0f} |"


def misfit(path: str, port: int, files: list[bytes]) -> Connect:
    """Send the files as a form."""
    content_type, content = bodies.as_form(bodies.form_of({f"{n}.jpg": file for n, file in enumerate(files)}))
    return partial(http_client, port, path, {"Content-Type": content_type}, content)


def litserve(port: int, files: list[bytes]) -> Connect:
    """Send the files as JSON, which LitServe hands to its workers."""
    content = json.dumps({"files": [base64.b64encode(file).decode() for file in files]}).encode()
    return partial(http_client, port, "/encode", {"Content-Type": "application/json"}, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--workloads", nargs="+", default=["16x1", "4x16", "1x350"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one round of one workload at one server")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    workloads = [Workload.of(name) for name in arguments.workloads]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch) / "photographs"
        folder.mkdir()
        files = [
            path.read_bytes()
            for path in write_photographs(arguments.folder, max(each.images for each in workloads), folder)
        ]
        http, grpc, peer = free_ports(3)
        ours = stack.enter_context(
            run_server(
                "misfit",
                [str(ROOT / ".venv/bin/bentoml"), "serve", "service.app:Misfit", "--port", str(http)],
                ROOT,
                {"MISFIT_BUNDLE": str(arguments.bundle.resolve()), "MISFIT_GRPC_PORT": str(grpc)},
                Path(scratch),
                http,
                "/readyz",
            )
        )
        theirs = stack.enter_context(
            run_server(
                "litserve",
                [str(ROOT / ".venv-peers/litserve/bin/python"), str(APPS / "litserve/photographs.py"), str(peer)],
                Path(scratch),
                {"ENCODER": str(BACKBONE)},
                Path(scratch),
                peer,
                "/health",
            )
        )
        others = OtherProcesses([ours.pid, theirs.pid])
        print("| workload | server | CPU s per 1,000 | images/s | p50, ms | p99, ms |\n" + "| --- " * 6 + "|")
        for workload in workloads:
            sent = files[: workload.images]
            ways = {
                "misfit /encode": (ours.pid, misfit("/encode", http, sent)),
                "misfit /score": (ours.pid, misfit("/score", http, sent)),
                "LitServe": (theirs.pid, litserve(peer, sent)),
            }
            measured: dict[str, list[Measurement]] = {name: [] for name in ways}
            for number in range(1 + arguments.rounds):  # the first one warms up
                for name, (pid, connect) in ways.items():
                    result = measure(workload, connect, pid, arguments.seconds if number else WARM_UP_SECONDS)
                    measured[name] += [result] if number else []
            for name, results in measured.items():
                figures = {field: median(asdict(each)[field] for each in results) for field in asdict(results[0])}
                rows.append({"workload": workload.name, "server": name, **figures})
                print(LINE.format(**rows[-1]), flush=True)
        share = others.measure_share()
    save(arguments.out, {"other processes' share of CPU time": round(share, 3), "rows": rows})


if __name__ == "__main__":
    main()
