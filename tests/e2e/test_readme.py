"""The README's examples, run as they stand against a real service, find the sample batch's misfits."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ROOT

README = (ROOT / "README.md").read_text()


def example(name: str) -> str:
    match = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert match, f"the README has no example {name}"
    return match[1]


def run(command: list[str], directory: Path, served) -> str:
    """Run in a directory that sees the repository's tests/data, with this environment's Python first."""
    (directory / "tests").symlink_to(ROOT / "tests")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    finished = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def misfits() -> set[str]:
    with (ROOT / "tests/data/shapes3d_batch.csv").open(newline="") as table:
        return {row["file"] for row in csv.DictReader(table) if row["misfit"] == "yes"}


def test_curl_example_ranks_the_misfits_first(served, tmp_path, misfits):
    script = example("curl").replace("localhost:3000", f"127.0.0.1:{served.port}")
    printed = run(["bash", "-euc", script], tmp_path, served)
    first = [line.split()[1] for line in printed.splitlines()[: len(misfits)]]
    assert set(first) == misfits
    assert json.loads((tmp_path / "scores.json").read_text())["context"]["size"] == 60


def test_python_client_example_ranks_the_misfits_first(served, tmp_path, misfits):
    script = example("client").replace("http://localhost:3000", served.url)
    printed = run([sys.executable, "-c", script], tmp_path, served)
    assert set(re.findall(r"\d+\.png", printed)) == misfits


@pytest.mark.parametrize(
    ("row", "metric"),
    [
        ("mutual information gap, on means", "mig"),
        ("mutual information gap, sampled (Chen's estimator)", "mig_sampled"),
        ("SSIM of reconstructions", "ssim"),
    ],
)
def test_the_readme_quotes_the_shipped_bundle_s_own_figures(row, metric):
    quoted = re.search(rf"^\| {re.escape(row)} \| ([\d.]+) \|", README, re.MULTILINE)
    assert quoted, f"the README's table has no row {row!r}"
    manifest = json.loads((ROOT / "service/bundles/shapes3d/manifest.json").read_text())
    assert quoted[1] == f"{manifest['metrics'][metric]:.3f}"


def test_every_setting_is_in_the_readme():
    from service.settings import PREFIX, Settings

    documented = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| (.*?) \|", README, re.MULTILINE))
    assert {name.lower() for name in documented} == set(Settings.model_fields)
