"""The tables of speed in the documents, written from the JSON of `make peers OUT=...` and `make scale OUT=...`.

    python tests/benchmarks/peers/tables.py

Each stands between two comments, `<!-- peers.json -->` and `<!-- end of peers.json -->`, of docs/results.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
RESULTS, PAGE = ROOT / "tests/benchmarks/results", ROOT / "docs/results.md"
PEERS = {
    "misfit": "misfit",
    "onnxruntime": "ONNX Runtime",
    "fastapi": "FastAPI with a batcher",
    "litserve": "LitServe",
    "mlserver": "MLServer",
    "pytriton": "PyTriton",
    "ray": "Ray Serve",
    "bentoml": "BentoML as documented",
}
Row = dict[str, Any]


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_cell(rows: Sequence[Row], write: Callable[[Row], str]) -> str:
    """Return what `write` makes of the one row, "failed" where the workload failed, "" where it was not measured."""
    return "" if not rows else "failed" if "failed" in rows[0] else write(rows[0])


def write_peers(report: Row) -> str:
    """Return the tables of CPU seconds, and of images a second with the waits, by server and workload."""
    rows = report["results"]["rows"]
    workloads = [name for name in ("W1", "W1x4", "W2", "W3", "W4") if any(row["workload"] == name for row in rows)]
    servers = list(dict.fromkeys((row["server"], row["way"]) for row in rows))
    servers.sort(key=lambda each: list(PEERS).index(each[0]) if each[0] in PEERS else -1)

    def table(write: Callable[[Row], str]) -> str:
        lines = []
        for server, way in servers:
            own = [row for row in rows if (row["server"], row["way"]) == (server, way)]
            cells = [make_cell([row for row in own if row["workload"] == name], write) for name in workloads]
            lines.append([f"{PEERS.get(server, server)}, {way}", *cells])
        return make_table(["server", *workloads], lines)

    memory = ", ".join(f"{PEERS.get(name, name)} {size}" for name, size in report["results"]["resident_mib"].items())
    share = report["results"].get("others_share")
    others = "other jobs" if share is None else f"other jobs, which took {share:.0%} of its CPU time,"
    return "\n\n".join(
        (
            "CPU seconds of the server for each 1,000 images:",
            table(lambda row: f"{row['cpu_seconds']:.2f}"),
            "Images a second; median and 99th percentile of the waits in ms:",
            table(lambda row: f"{row['images_a_second']:.0f}; {row['p50']:.0f}, {row['p99']:.0f}"),
            f"Resident memory after the load, MiB: {memory}. The machine had {others} meanwhile: where they are "
            "many, only CPU seconds tell something.",
            _write_source(report, "peers"),
        )
    )


def write_scale(report: Row) -> str:
    """Return the table of images a second and CPU by CPUs, API workers and workload."""
    rows = report["results"]["rows"]
    columns = list(dict.fromkeys((row["workload"], row["way"]) for row in rows))
    lines = []
    for cpus, workers in dict.fromkeys((row["cpus"], row["workers"]) for row in rows):
        own = [row for row in rows if (row["cpus"], row["workers"]) == (cpus, workers)]
        cells = [
            f"{row['images_a_second']:.0f}; {row['cpu_seconds']:.2f}; {row['p99']:.0f}"
            for column in columns
            for row in own
            if (row["workload"], row["way"]) == column
        ]
        lines.append([str(cpus), str(workers), *cells, str(own[0]["resident_mib"])])
    head = ["CPUs", "API workers", *(f"{workload} {way}" for workload, way in columns), "resident MiB"]
    return "\n\n".join(
        (
            "Images a second; CPU seconds for each 1,000 images; 99th percentile of the waits in ms:",
            make_table(head, lines),
            _write_source(report, "scale"),
        )
    )


def _write_source(report: Row, name: str) -> str:
    return f"(Measured at commit {report['commit'][:12]}: `tests/benchmarks/results/{name}.json`.)"


def insert(page: str, name: str, content: str) -> str:
    """Return the page with `content` between the comments of `name`. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name}.json -->", f"<!-- end of {name}.json -->"
    inserted, count = re.subn(
        re.escape(begin) + ".*?" + re.escape(end), lambda _: f"{begin}\n\n{content}\n\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{begin} and {end} stand {count} times in the page, expected once.")
    return inserted


def update(page: str) -> str:
    """Return the page with the tables of what was measured."""
    for name, write in (("peers", write_peers), ("scale", write_scale)):
        if (file := RESULTS / f"{name}.json").exists():
            page = insert(page, name, write(json.loads(file.read_text())))
    return page


if __name__ == "__main__":
    PAGE.write_text(update(PAGE.read_text()))
