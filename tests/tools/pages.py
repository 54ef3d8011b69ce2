"""The web page, reports and Swagger UI in headless Chromium.

It makes the reports, starts two services, and runs tests/pages.

It needs Node.js, Chromium, and what tests/pages/package.json names (`make pages` installs that). CHROMIUM names another
browser than /usr/bin/chromium. SHOTS=FOLDER keeps pictures of what the tests see.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "support"))
from serving import ROOT, serve

from service.api.score_records import GroupSummary, ScoreRow, ScoresTable, TableInfo
from service.core.detect.scoring import false_discovery_flags
from service.images.decode import Content
from service.offline.in_process import LocalClient
from service.offline.scores_table import write_scores
from service.report.report import write_report

BATCH = ROOT / "tests" / "data" / "shapes3d_batch.zip"
PAGES = ROOT / "tests" / "pages"
LATENTS = ("object hue", "wall hue", "scale", "shape", "orientation", "floor hue")
LARGE = 10_000
HOSTILE = ("<img src=x onerror=window.hacked=1>", "</script><script>window.hacked=1</script>", "{{constructor}}\"'&")


def score_sample(path: Path) -> None:
    """Write the scores of the sample batch to `path`."""
    with zipfile.ZipFile(BATCH) as batch, LocalClient("shapes3d") as client:
        files = {name: batch.read(name) for name in batch.namelist() if name.endswith(".png")}
        answer = client.score(files, attributions="all", nearest=3)
    rows = [
        ScoreRow(
            "", item.id, f"{BATCH}!/{item.id}", item.rank, item.outlier_score, item.outlier_probability,
            item.is_outlier, item.is_foreign, item.mahalanobis_squared, item.reason or "",
            nearest=json.dumps([{"id": each.id, "distance": each.distance} for each in item.nearest or ()]),
            attributions=json.dumps({each.latent: each.shapley_odds for each in item.attributions or ()}),
        )
        for item in answer.items
    ]  # fmt: skip
    context = answer.context
    flagged = sum(bool(row.is_outlier) for row in rows)
    summary = GroupSummary(len(rows), 0, flagged, context.contamination, context.reliability, context.estimator)
    write_scores(path, rows, TableInfo(answer.bundle_id, "shapes3d", {}, {"": summary}))


def simulate(count: int, names: Callable[[int], str]) -> ScoresTable:
    """Return a table of simulated scores in three groups, with foreign and unreadable images."""
    rng = np.random.default_rng(0)
    squared = rng.chisquare(len(LATENTS), count)
    squared[rng.random(count) < 0.03] *= 10
    ranks = np.empty(count, dtype=int)
    ranks[np.argsort(-squared)] = np.arange(1, count + 1)
    rows = []
    for number, (distance, rank) in enumerate(zip(squared.tolist(), ranks.tolist(), strict=True)):
        name, group = names(number), f"class {number % 3}"
        if number % 997 == 5:
            error = "The file is no image that can be read."
            rows.append(ScoreRow(group, name, name, None, None, None, None, None, None, error=error))
            continue
        shares = dict(zip(LATENTS, (rng.dirichlet(np.ones(len(LATENTS))) * distance).tolist(), strict=True))
        rows.append(
            ScoreRow(
                group, name, name, rank, distance / 4 - 4, float(1 / (1 + np.exp((25 - distance) / 3))),
                distance > 25, distance > 110, distance, f"{name}: floor hue is {distance / 3:.1f} sd from this batch",
                nearest=json.dumps([{"id": names((number + 3) % count), "distance": 0.3}]),
                attributions=json.dumps(shares),
            )
        )  # fmt: skip
    summary = GroupSummary(count // 3, 0, 0, 0.03, "high", "ensemble", (f"{names(0)}: a warning.",))
    return ScoresTable(
        rows, TableInfo("simulated", "shapes3d", {}, {f"class {number}": summary for number in range(3)})
    )


def write_reports(folder: Path) -> None:
    with zipfile.ZipFile(BATCH) as batch:
        files = [batch.read(name) for name in batch.namelist() if name.endswith(".png")]

    def read_image(row: ScoreRow) -> Content:
        return files[hash(row.id) % len(files)]

    score_sample(folder / "sample.jsonl")
    command = [sys.executable, "-m", "service.cli", "report", str(folder / "sample.jsonl")]
    subprocess.run([*command, "--out", str(folder / "sample.html")], cwd=ROOT, check=True)
    large = folder / "large.html"
    write_report(
        large, simulate(LARGE, lambda number: f"photos/{number:05}.png"), read_image=read_image, live_latents=6
    )
    assert large.stat().st_size < 20_000_000, large.stat().st_size
    hostile = simulate(30, lambda number: f"{HOSTILE[number % len(HOSTILE)]} {number}")
    write_report(folder / "hostile.html", hostile, title=HOSTILE[1], read_image=read_image)


def write_cases(path: Path) -> None:
    """Write flags as `service.core.detect.scoring` has them, of random probabilities."""
    rng = np.random.default_rng(1)
    cases = []
    for _ in range(200):
        count = int(rng.integers(1, 40))
        probability, ood = rng.random(count) ** rng.choice([0.2, 1, 4]), rng.random(count) < 0.1
        probability[ood] = 1
        rank = np.empty(count, dtype=np.int64)
        rank[np.lexsort((-probability, ~ood))] = np.arange(1, count + 1)
        threshold, rate = float(rng.random()), float(rng.random())
        cases.append(
            {
                "items": [
                    {"rank": r, "outlier_probability": p, "is_foreign": f}
                    for r, p, f in zip(rank.tolist(), probability.tolist(), ood.tolist(), strict=True)
                ],
                "threshold": threshold,
                "by_threshold": ((probability > threshold) | ood).tolist(),
                "rate": rate,
                "by_rate": (false_discovery_flags(probability, rank, rate, ~ood) | ood).tolist(),
            }
        )
    path.write_text(json.dumps(cases))


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder, token = Path(scratch), secrets.token_hex()
        write_reports(folder)
        write_cases(folder / "cases.json")
        (folder / "tokens").write_text(hashlib.sha256(token.encode()).hexdigest())
        with (
            serve(folder / "log") as served,
            serve(
                folder / "guarded.log", {"MISFIT_TOKENS_FILE": str(folder / "tokens"), "MISFIT_MAX_IMAGES": "40"}
            ) as guarded,
        ):
            environment = {
                "BATCH": str(BATCH), "CASES": str(folder / "cases.json"), "REPORTS": str(folder),
                "SERVICE": f"{served.url}/", "GUARDED": f"{guarded.url}/", "TOKEN": token,
            }  # fmt: skip
            tests = sorted(str(path) for path in PAGES.glob("*.test.mjs"))
            command = ["node", "--test", "--test-concurrency=1", *tests]
            return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
