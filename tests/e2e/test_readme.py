"""The README's examples, run as they stand against a real service, find the sample batch's misfits."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import pytest
import readme
from PIL import Image
from serving import ROOT

README = readme.README.read_text()


@pytest.fixture
def misfits() -> set[str]:
    with (ROOT / "tests/data/shapes3d_batch.csv").open(newline="") as table:
        return {row["file"] for row in csv.DictReader(table) if row["misfit"] == "yes"}


def width_of(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.width


def test_curl_example_ranks_the_misfits_first(served, tmp_path, misfits):
    printed = readme.run_shell("curl", tmp_path, served)
    first = [line.split()[1] for line in printed.splitlines()[: len(misfits)]]
    assert set(first) == misfits
    assert json.loads((tmp_path / "scores.json").read_text())["context"]["size"] == 60


def test_python_client_example_ranks_the_misfits_first(served, tmp_path, misfits):
    script = readme.example("client").replace("http://localhost:3000", served.url)
    printed = readme.run([sys.executable, "-c", script], tmp_path)
    assert set(re.findall(r"\d+\.png", printed)) == misfits


def test_the_reasons_example_prints_what_the_readme_shows(served, tmp_path):
    printed = readme.run_shell("reasons", tmp_path, served)
    assert f"```\n{printed}```" in README
    assert width_of(tmp_path / "reasons.png") > 4 * 64


def test_the_edits_example_leaves_counterfactuals_on_disk(served, tmp_path):
    readme.run_shell("edits", tmp_path, served)
    answer = json.loads((tmp_path / "edited/answer.json").read_text())
    assert len(list((tmp_path / "edited").glob("*.png"))) == len(answer["pictures"]) >= 3
    assert all(picture["inside"] for picture in answer["pictures"])


def test_the_pictures_example_draws(served, tmp_path):
    readme.run_shell("pictures", tmp_path, served)
    for name in ("traversal", "path", "samples"):
        assert width_of(tmp_path / f"{name}.png") > 4 * 64


def test_the_context_example_scores_one_image_by_a_kept_context(served, tmp_path):
    answer = json.loads(readme.run_shell("context", tmp_path, served))
    assert answer["context"]["source"] == "reference"
    assert answer["items"][0]["is_outlier"]


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


def test_the_readme_quotes_the_benchmark_s_own_figures():
    results = ROOT / "train/results/benchmark"
    cells = json.loads((results / "benchmark.json").read_text())["cells"]
    header = re.search(r"^\| stratum \| (`leave_one_out`.*) \|$", README, re.MULTILINE)
    assert header
    methods = header[1].replace("`", "").split(" | ")
    for stratum in ("any_difference", "single_factor", "adjacent_level", "shape_only"):
        row = re.search(rf"^\| {stratum.replace('_', ' ')} \| (.*) \|$", README, re.MULTILINE)
        assert row
        aurocs = [[cell["methods"][name]["auroc"] for cell in cells if cell["stratum"] == stratum] for name in methods]
        expected = [
            " / ".join(
                f"{sum(each[key] for each in of_method) / len(of_method):.3f}" for key in ("mean", "worst_decile")
            )
            for of_method in aurocs
        ]
        assert row[1].split(" | ") == expected
    seed_case = json.loads((results / "seed_case.json").read_text())["auroc"]
    quoted = re.search(r"mean AUROC of ([\d.]+) \(worst tenth ([\d.]+)\)", README)
    assert quoted
    assert quoted.groups() == (f"{seed_case['mean']:.5f}", f"{seed_case['worst_decile']:.5f}")


def test_every_setting_is_in_the_readme():
    from service.settings import PREFIX, Settings

    documented = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| (.*?) \|", README, re.MULTILINE))
    assert {name.lower() for name in documented} == set(Settings.model_fields)
