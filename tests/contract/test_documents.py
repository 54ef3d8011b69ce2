"""What the pages say of the code, held against the code: settings, errors, endpoints, figures, paths and commands."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import get_args

import documents
import pytest
import yaml
from serving import ROOT

from service.api.endpoints import ENDPOINTS
from service.core.types import EstimatorName
from service.settings import PREFIX, Settings
from service.transports.error_status import STATUS

DOCS = ROOT / "docs"
PAGES = pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
# Examples that cannot be run where tests run. More of them are to be written another way.
MOST_NOT_RUN = 21
NOT_RUN = [block for page in documents.PAGES for block in documents.blocks(page) if block.reason]
# Pages without examples that are run; the paths that they name exist as well.
MORE_PAGES = [ROOT / "CHANGELOG.md", *sorted((ROOT / "k8s").glob("*.md")), ROOT / "tests/faults/README.md"]
# Paths that a page may name though git does not have them: examples and commands make them.
MADE = ("service/bundles/NAME", "service/bundles/mine")
FOLDERS = ("service", "train", "export", "tests", "k8s", "docs")


def table(page: str, header: str) -> list[list[str]]:
    """Return the rows of the table of that page whose header line begins so."""
    lines = iter((DOCS / page).read_text().splitlines())
    assert any(line.startswith(header) for line in lines), f"{page} has no table {header}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@PAGES
def test_every_block_has_a_language_and_examples_are_named_once(page):
    blocks = list(documents.blocks(page))
    assert page.read_text().count("\n```") + page.read_text().startswith("```") == 2 * len(blocks)
    assert {block.language for block in blocks} <= set(documents.LANGUAGES)
    names = [block.name for block in blocks if block.name]
    assert len(names) == len(set(names))


def test_few_examples_are_not_run_and_each_says_why():
    assert len(NOT_RUN) <= MOST_NOT_RUN
    assert all(len(block.reason) > 10 for block in NOT_RUN)


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_what_is_not_run_is_made_of_commands_that_exist(block):
    if block.language == "python":
        compile(block.code, str(block), "exec")
        return
    subprocess.run(["sh", "-n", "-c", block.code], check=True)
    targets = re.findall(r"^(?:\w+=\S+ )*make ([\w./-]+)", block.code, re.MULTILINE)
    known = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(targets) <= known
    for command in re.findall(r"-m train (.*)$", block.code, re.MULTILINE):
        from train.__main__ import _parser

        _parser().parse_args(command.split())


@pytest.mark.parametrize("page", [*documents.PAGES, *MORE_PAGES], ids=lambda page: page.name)
def test_paths_that_a_page_names_exist(page):
    text = page.read_text()
    for block in documents.blocks(page):
        text = text.replace(block.code, "")
    named = {path for path in re.findall(r"`([\w.-]+/[\w./-]*)`", text) if path.split("/")[0] in FOLDERS}
    missing = sorted(path for path in named if path not in MADE and not (ROOT / path).exists())
    assert not missing, f"{page.name} names {missing}"


@PAGES
def test_names_that_a_page_gives_with_a_file_are_in_it(page):
    for path, name in re.findall(r"`([\w/]+\.py)` \(`(\w+)`\)", page.read_text()):
        assert name in (ROOT / path).read_text(), f"{page.name} looks for {name} in {path}"


def test_the_architecture_names_every_package():
    text = (DOCS / "architecture.md").read_text()
    packages = [
        file.parent.relative_to(ROOT) for top in ("service", "train") for file in ROOT.glob(f"{top}/*/__init__.py")
    ]
    assert not [str(package) for package in packages if f"`{package}`" not in text]


def test_the_architecture_names_every_file_of_the_mathematics():
    for folder, _, files in table("architecture.md", "| part |"):
        there = {path.name for path in (ROOT / folder.strip("`")).glob("*.py")} - {"__init__.py"}
        assert set(re.findall(r"`(\w+\.py)`", files)) == there


@PAGES
def test_make_targets_that_a_page_names_exist(page):
    named = set(re.findall(r"`make ([a-z0-9-]+)", page.read_text()))
    assert named <= set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    assert all(f"docs/{page.name}" in text for page in DOCS.glob("*.md"))


def test_the_readme_is_one_page():
    assert len(documents.README.read_text().splitlines()) < 120


def test_every_setting_is_documented():
    documented = {row[0].strip("`").removeprefix(PREFIX).lower() for row in table("deployment.md", "| variable |")}
    assert documented == set(Settings.model_fields)


def test_every_error_is_documented_with_its_statuses():
    documented = {tuple(cell.strip("`") for cell in row) for row in table("errors.md", "| code |")}
    expected = {(error.code, error.__name__, str(int(status.http)), status.grpc) for error, status in STATUS.items()}
    assert documented == expected


def test_every_estimator_is_documented():
    documented = [row[0].strip("`") for row in table("scoring-method.md", "| name | how it finds")]
    assert sorted(documented) == sorted(get_args(EstimatorName))


def test_every_endpoint_is_documented():
    documented = {path for row in table("http-api.md", "| path |") for path in re.findall(r"`(/\w+)`", row[0])}
    assert documented == {f"/{name}" for name in ENDPOINTS}


def test_hooks_run_what_make_check_runs():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    checks = re.findall(r"^\t\$\(TRAIN\)/([\w-]+)", (ROOT / "Makefile").read_text().split("\ncheck:")[1], re.MULTILINE)
    hooks = [Path(hook["entry"].split()[0]).name for hook in repository["hooks"]]
    assert set(hooks) == {"ruff", "mypy", "lint-imports"} <= set(checks)


RESULTS = (DOCS / "results.md").read_text()
FOUND = ("any_difference", "single_factor", "adjacent_level", "shape_only", "common_cause", "copies")


@pytest.mark.parametrize(
    ("row", "metric"),
    [
        ("mutual information gap, on means", "mig"),
        ("mutual information gap, sampled (Chen's estimator)", "mig_sampled"),
        ("SSIM of reconstructions", "ssim"),
    ],
)
def test_the_shipped_bundle_s_own_figures_are_quoted(row, metric):
    quoted = re.search(rf"^\| {re.escape(row)} \| ([\d.]+) \|", RESULTS, re.MULTILINE)
    assert quoted, f"the page has no row {row!r}"
    manifest = json.loads((ROOT / "service/bundles/shapes3d/manifest.json").read_text())
    assert quoted[1] == f"{manifest['metrics'][metric]:.3f}"


def test_the_benchmark_s_own_figures_are_quoted():
    results = ROOT / "train/results/benchmark"
    report = json.loads((results / "benchmark.json").read_text())
    header = re.search(r"^\| stratum \| (`ensemble`.*) \|$", RESULTS, re.MULTILINE)
    assert header
    methods = header[1].replace("`", "").split(" | ")
    for stratum in ("any_difference", "single_factor", "adjacent_level", "shape_only", "common_cause", "copies"):
        row = re.search(rf"^\| {stratum.replace('_', ' ')} \| (.*) \|$", RESULTS, re.MULTILINE)
        assert row
        cells = [cell for cell in report["cells"] if cell["stratum"] == stratum]
        aurocs = [[cell["methods"][name]["auroc"] for cell in cells] for name in methods]
        expected = [
            " / ".join(
                f"{sum(each[key] for each in of_method) / len(of_method):.3f}" for key in ("mean", "worst_decile")
            )
            for of_method in aurocs
        ]
        assert row[1].split(" | ") == expected
    assert f"measured at commit {report['commit'][:7]}" in RESULTS
    seed_case = json.loads((results / "seed_case.json").read_text())
    quoted = re.search(r"mean AUROC of ([\d.]+) \(worst tenth ([\d.]+)\)", RESULTS)
    assert quoted
    assert quoted.groups() == (f"{seed_case['auroc']['mean']:.5f}", f"{seed_case['auroc']['worst_decile']:.5f}")
    assert f"measured at commit {seed_case['commit'][:7]}" in RESULTS


def test_the_readme_quotes_the_same_figures():
    results, text = ROOT / "train/results", " ".join(documents.README.read_text().split())
    report = json.loads((results / "benchmark/benchmark.json").read_text())
    by_stratum = {
        stratum: [
            cell["methods"]["ensemble"]["auroc"]["mean"] for cell in report["cells"] if cell["stratum"] == stratum
        ]
        for stratum in ("any_difference", "shape_only")
    }
    any_difference, shape_only = (sum(means) / len(means) for means in by_stratum.values())
    assert f"mean AUROC of {any_difference:.3f} where any factors differ, and of {shape_only:.3f} where only" in text
    digits = re.search(r"^\| AUROC, mean \| [\d.]+ \| ([\d.]+) .* ([\d.]+) \|$", RESULTS, re.MULTILINE)
    assert digits
    assert f"is {digits[1]} without a reference set and {digits[2]} with 100 reference images" in text


def test_what_is_found_is_quoted():
    report = json.loads((ROOT / "train/results/benchmark/benchmark.json").read_text())
    row = re.search(r"^\| found of (.*) \|$", RESULTS, re.MULTILINE)
    assert row
    for stratum, quoted in zip(FOUND, row[1].split(" | ")[1:], strict=True):
        by_size = {
            (cell["size"], cell["outliers"]): cell["methods"]["ensemble"]["found"]
            for cell in report["cells"]
            if cell["stratum"] == stratum
        }
        assert quoted == " / ".join(f"{by_size[350, count]:.0%}" for count in (25, 70, 122))


def test_the_calibration_report_s_commit_is_quoted():
    report = json.loads((ROOT / "train/results/calibration/calibration.json").read_text())
    assert f"measured at commit {report['commit'][:7]}" in RESULTS


def test_the_photographs_report_s_figures_are_quoted():
    text = (ROOT / "docs/photographs.md").read_text()
    report = json.loads((ROOT / "train/results/photographs/photographs.json").read_text())
    assert f"measured at commit {report['commit'][:7]}" in text
    for collection in report["collections"]:
        cells = {(cell["size"], cell["outliers"]): cell for cell in collection["cells"]}
        cell, clean = cells[100, 7], cells[100, 0]
        area = cell["auroc"]["density_ratio"]
        quoted = f"| {area['mean']:.3f} / {area['worst_decile']:.3f} |"
        flags = f"| {cell['found']:.0%} | {cell['inliers_flagged']:.1%} | {clean['inliers_flagged']:.1%} |"
        assert any(quoted in line and flags in line for line in text.splitlines())


def test_the_means_of_other_halves_of_photographs_are_quoted():
    text = (ROOT / "docs/photographs.md").read_text()
    report = json.loads((ROOT / "train/results/photographs/halves.json").read_text())
    assert f"--seed {report['seed']}`, commit {report['commit'][:7]}" in text
    for collection in report["collections"]:
        halves = collection["halves"]
        mean = {name: sum(half[name] for half in halves) / len(halves) for name in halves[0]}
        found = [half["found"] for half in halves]
        clean = ", ".join(f"{mean[f'clean_flagged_{size}']:.1%}" for size in (20, 50, 100))
        figures = (f"{mean['auroc']:.3f}", f"{mean['found']:.0%}", f"{mean['inliers_flagged']:.1%}", clean)
        errors = f"{mean['false_discovery_proportion']:.2f} | {mean['calibration_error']:.3f}"
        assert f"| {' | '.join(figures)} | {errors} |" in text
        assert f"from {min(found):.0%} to {max(found):.0%}" in text


def test_the_figures_of_a_folder_as_a_whole_are_quoted():
    text = (ROOT / "docs/photographs.md").read_text()
    report = json.loads((ROOT / "tests/benchmarks/results/new_user.json").read_text())
    assert f"measured at commit {report['commit'][:7]}" in text
    columns = ("in the first", "in three times as many", "flagged", "others flagged")
    for each in report["results"]:
        figures = [", ".join(str(run[column]) for run in each["runs"]) for column in columns]
        assert f"| {each['case']} | {each['runs'][0]['images']:,} | {' | '.join(figures)} |" in text


def test_the_digits_report_s_commit_is_quoted():
    report = json.loads((ROOT / "train/results/mnist_contexts/digits.json").read_text())
    assert re.search(rf"measured at\s+commit {report['commit'][:7]}", RESULTS)


@pytest.mark.parametrize("images", ["shapes3d", "photographs"])
def test_the_engines_give_the_numbers_and_the_rates_that_the_page_says(images):
    page = (ROOT / "docs/command-line.md").read_text()
    results = json.loads((ROOT / f"tests/benchmarks/results/engines_{images}.json").read_text())["results"]
    for runs in results.values():
        cells = [f"{run['images per CPU second']:,} ({run['MiB']:,})" for run in runs]
        assert f"| {runs[0]['images']:,} | {' | '.join(cells)} |" in page
        assert all(run["largest relative difference"] < 3e-11 for run in runs[1:])
        assert not any(run["rows that differ otherwise"] for run in runs[1:])


def test_the_rate_of_photographs_is_what_was_measured():
    share = json.loads((ROOT / "tests/benchmarks/results/photograph_rate.json").read_text())["results"]["share"]
    assert f"at {share:.2f} of the rate of decoding" in (ROOT / "docs/photographs.md").read_text()


def test_the_shares_of_training_beside_other_work_are_what_was_measured():
    report = json.loads((ROOT / "train/results/training_share.json").read_text())
    rows = table("training.md", "| busy processes beside it |")
    for quoted, measured in zip(rows, report["beside"], strict=True):
        shares = [f"{share:.2f}" for share in measured["of_fair_share"].values()]
        assert quoted == [str(measured["busy_processes"]), *shares]
    assert report["commit"][:7] in (ROOT / "docs/training.md").read_text()


def test_the_tables_of_speed_are_what_was_measured():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "tests/benchmarks/peers/tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = (ROOT / "docs/results.md").read_text()
    assert tables.update(page) == page, "make speed-tables"
