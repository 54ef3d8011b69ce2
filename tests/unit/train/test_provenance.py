"""What results say of how they came about."""

from __future__ import annotations

import re

import pytest

from train import provenance


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "folder", "--data", "pictures", "--size", "64"], "run folder --data pictures --size 64"),
        (["run", "folder", "--data", "/home/a/pictures", "--out", "/tmp/run"], "run folder --data pictures --out run"),
    ],
)
def test_a_command_is_told_without_this_machines_paths(monkeypatch, arguments, expected):
    monkeypatch.setattr("sys.argv", ["train", *arguments])
    assert provenance.command() == f"python -m train {expected}"


def test_the_commit_is_told_or_unknown():
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", provenance.commit())
