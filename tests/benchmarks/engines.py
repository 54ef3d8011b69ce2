"""The engines of `misfit score` against the service: equal numbers, and what each costs.

    .venv-ray/bin/python tests/benchmarks/engines.py TREE [--bundle NAME|PATH] [--one 20000] [--out FILE.json]

TREE is a folder of classes, as tests/benchmarks/trees.py writes them. Three comparisons, each by the command that a
user would run, with a table of scores as Parquet:

each folder  its images with each other. The service gets a request for each folder, which holds as many images as a
             request may have; the engines get all folders at once.
one context  the first `--one` images with each other, more than a request may have: the same pipeline in one process
             without that limit, and the engines.
merged       the images of one folder with the contexts of two others, which were fitted by the service.

Rows are compared one by one: texts, ranks and flags for equality, and numbers by |a - b| / max(|a|, |b|). The service
runs with one API worker. CPU and memory (proportional set size) are those of all processes, the service's included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "support"))
from measurements import ROOT, save
from process_cost import Cost, run_watched
from serving import serve

from service.api.score_records import ScoreRow
from service.offline.scores_table import read_scores
from service.settings import Settings

MISFIT = [sys.executable, "-m", "service.cli"]
# `misfit score` in one pass, however many images there are.
ONE_PASS = [
    sys.executable,
    "-c",
    "import sys; from service.cli import main; from service.cli.commands import score\n"
    "score.LARGE = sys.maxsize; main.cli()",
]
NUMBERS = ("outlier_score", "outlier_probability", "mahalanobis_squared")
EXACT = ("group", "id", "path", "rank", "is_outlier", "is_foreign", "reason", "error")
ENGINES = {"local": ("--engine", "local"), "ray": ("--engine", "ray", "--actors", "2")}
WITHOUT_LIMIT = "one process without limits"


def compare(scores: Sequence[ScoreRow], expected: Sequence[ScoreRow]) -> dict[str, float]:
    """Return the largest relative difference of a number, and the rows with any other difference."""
    assert len(scores) == len(expected)
    largest, other = 0.0, 0
    for one, two in zip(scores, expected, strict=True):
        other += any(getattr(one, name) != getattr(two, name) for name in EXACT)
        shares = json.loads(one.attributions), json.loads(two.attributions)
        other += shares[0].keys() != shares[1].keys()
        pairs = [(getattr(one, name), getattr(two, name)) for name in NUMBERS]
        pairs += [(shares[0][name], shares[1][name]) for name in shares[0] if name in shares[1]]
        for a, b in pairs:
            if a != b:
                largest = max(largest, abs(a - b) / max(abs(a), abs(b)))
    return {"largest relative difference": largest, "rows that differ otherwise": other}


class Comparison:
    """Scores the same images in several ways. The first way is what the others are compared with."""

    def __init__(self, inputs: Sequence[str], options: Sequence[str], bundle: str | None, scratch: Path) -> None:
        self._inputs, self._options, self._scratch = inputs, list(options), scratch
        self._bundle = ["--bundle", bundle] if bundle else []
        self._expected: Sequence[ScoreRow] | None = None
        self.results: list[dict[str, Any]] = []

    def score(self, way: str, program: Sequence[str], options: Sequence[str], *others: int) -> None:
        out = self._scratch / "scores.parquet"
        by_path = "\n".join(self._inputs).encode()
        bundle = [] if "--url" in options else self._bundle
        (listed := self._scratch / "images.txt").write_bytes(by_path)
        named = self._inputs if len(self._inputs) == 1 else [str(listed)]
        command = [*program, "score", *named, *self._options, *options, *bundle, "--quiet", "--show", "0"]
        cost = run_watched(
            [*command, "--out", str(out)], *others, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        rows = read_scores(out).rows
        result = describe(way, len(rows), cost)
        if self._expected is None:
            self._expected = rows
        else:
            result |= compare(rows, self._expected)
        self.results.append(result)
        print(result, flush=True)


def describe(way: str, images: int, cost: Cost) -> dict[str, Any]:
    """Return what a way of scoring cost."""
    return {
        "by": way,
        "images": images,
        "seconds": round(cost.seconds, 1),
        "images per second": round(images / cost.seconds),
        "CPU seconds": round(cost.cpu_seconds, 1),
        "images per CPU second": round(images / cost.cpu_seconds),
        "MiB": round(cost.mib),
    }


def fit(folder: Path, out: Path, url: str) -> list[str]:
    """Have the service fit the context of a folder. Return the option that names it."""
    subprocess.run([*MISFIT, "fit", folder, "--out", out, "--url", url, "--quiet"], cwd=ROOT, check=True)
    return ["--context", str(out)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--bundle")
    parser.add_argument("--one", type=int, default=20_000, help="images in one context")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folders = sorted(path for path in arguments.tree.iterdir() if path.is_dir())
    most = max(len(list(folder.iterdir())) for folder in folders)
    environment = {"MISFIT_BUNDLE": str(Path(arguments.bundle).resolve())} if arguments.bundle else {}
    environment["MISFIT_MAX_IMAGES"] = str(max(most, Settings().max_images))
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        with serve(scratch / "log", environment) as served:
            url, pid = ("--url", served.url), served.process.pid
            contexts = [
                option
                for number, folder in enumerate(folders[1:3])
                for option in fit(folder, scratch / f"{number}.json", served.url)
            ]
            each = Comparison([str(arguments.tree)], ["--by", "folder"], arguments.bundle, scratch)
            each.score("service", MISFIT, url, pid)
            merged = Comparison([str(folders[0])], contexts, arguments.bundle, scratch)
            merged.score("service", MISFIT, url, pid)
        files = chain.from_iterable(sorted(map(str, folder.iterdir())) for folder in folders)
        one = Comparison(list(islice(files, arguments.one)), [], arguments.bundle, scratch)
        one.score(WITHOUT_LIMIT, ONE_PASS, ())
        for name, options in ENGINES.items():
            for comparison in (each, one, merged):
                work = scratch / f"{name}{id(comparison)}"
                comparison.score(name, MISFIT, (*options, "--work", str(work)))
    save(arguments.out, {"each folder": each.results, "one context": one.results, "merged": merged.results})


if __name__ == "__main__":
    main()
