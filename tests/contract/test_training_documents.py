"""The examples of README, CONTRIBUTING and docs/ that train and export, run as they stand."""

from __future__ import annotations

import sys
from pathlib import Path

import documents
import pytest

pytest.importorskip("torch", reason="runs in .venv-train")

PAGES = [page for page in documents.PAGES if any(block.needs_training for block in documents.examples(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_runs_and_prints_what_the_page_shows(tmp_path, page):
    assert Path(sys.prefix).name == documents.TRAINING
    for example in documents.examples(page):
        if example.needs_training:
            printed = documents.run(example, tmp_path, {})
            assert not (difference := documents.difference(example, printed)), difference
