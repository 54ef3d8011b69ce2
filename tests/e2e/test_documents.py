"""Every example of README, CONTRIBUTING and docs/, run as it stands against a real service."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import documents
import pytest
from PIL import Image
from serving import ROOT, Served


@dataclass(frozen=True)
class Ran:
    """What became of a page's examples: the directory that they ran in, one after another, and what each printed."""

    directory: Path
    printed: list[tuple[documents.Example, str]]

    def output(self, name: str) -> str:
        """Return what the example of that name printed."""
        return next(printed for example, printed in self.printed if example.name == name)


Run = Callable[[Path], Ran]


@pytest.fixture(scope="module")
def run(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a page's examples, once, in a directory outside the checkout."""

    @cache
    def run_page(page: Path) -> Ran:
        directory = tmp_path_factory.mktemp(page.stem)
        examples = [example for example in documents.examples(page) if not example.needs_training]
        addresses = documents.addresses_of(served)
        return Ran(directory, [(example, documents.run(example, directory, addresses)) for example in examples])

    return run_page


@pytest.fixture(scope="module")
def misfits() -> set[str]:
    with (ROOT / "tests/data/shapes3d_batch.csv").open(newline="") as table:
        return {row["file"] for row in csv.DictReader(table) if row["misfit"] == "yes"}


def width_of(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.width


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_every_example_runs_and_prints_what_the_page_shows(run, page):
    for example, printed in run(page).printed:
        assert not (difference := documents.difference(example, printed)), difference


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_what_examples_write_is_ignored_by_git(run, page):
    directory = run(page).directory
    written = sorted(path for path in directory.iterdir() if not path.is_symlink())
    # With a slash, a folder is known for one where the checkout has none of that name.
    names = [f"{path.name}/" if path.is_dir() else path.name for path in written]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.split() == names


@pytest.mark.parametrize("page", [documents.README, documents.QUICKSTART], ids=lambda page: page.name)
def test_the_first_example_ranks_the_misfits_first(run, misfits, page):
    ran = run(page)
    assert {line.split()[1] for line in ran.output("score").splitlines()[: len(misfits)]} == misfits
    assert json.loads((ran.directory / "out/scores.json").read_text())["context"]["size"] == 60


def test_the_examples_that_draw_leave_their_pictures(run):
    out = run(documents.QUICKSTART).directory / "out"
    for name in ("reasons", "traversal", "path", "samples"):
        assert width_of(out / f"{name}.png") > 4 * 64
    answer = json.loads((out / "edited/answer.json").read_text())
    assert len(list((out / "edited").glob("*.png"))) == len(answer["pictures"]) >= 3
    assert all(picture["inside"] for picture in answer["pictures"])


def test_the_example_of_a_context_scores_one_image_by_it(run):
    answer = json.loads((run(documents.QUICKSTART).directory / "out/one.json").read_text())
    assert answer["context"]["source"] == "reference"
    assert answer["items"][0]["is_outlier"]


def test_bentoml_s_own_client_ranks_the_misfits_first(run, misfits):
    printed = run(ROOT / "docs/python-client.md").output("bentoml")
    assert set(re.findall(r"\d+\.png", printed)) == misfits
