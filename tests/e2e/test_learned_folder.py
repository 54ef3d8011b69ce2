"""A folder with a few odd pictures is learned and scored as a whole, by two commands: the odd ones are the first."""

import csv
import subprocess
import sys

import numpy as np
import photographs
import pytest
from PIL import Image, ImageDraw
from serving import ROOT

EACH, ODD = 50, 4


def write_page(path, random):
    """Write lines of text on a light ground."""
    page = Image.new("RGB", (96, 72), tuple(random.integers(150, 250, 3).tolist()))
    pen = ImageDraw.Draw(page)
    for top in range(3, 60, 11):
        pen.text((4, top), "".join(random.choice(list("abcdefghij klmnop"), 14)), fill=(30, 30, 30))
    noisy = np.asarray(page, np.float32) + random.normal(0, 4, (72, 96, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)


def run(*arguments):
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Return the rows of the table, by rank, and what the command said."""
    root, random = tmp_path_factory.mktemp("whole"), np.random.default_rng(3)
    photographs.write_tree(root / "mine", EACH)
    for number in range(ODD):
        write_page(root / "mine" / photographs.KINDS[number % 3] / f"page_{number}.png", random)
    run("learn", root / "mine", "--out", root / "bundle")
    result = run("score", root / "mine", "--bundle", root / "bundle", "--out", root / "scores.csv")
    with (root / "scores.csv").open() as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["rank"])), result


def test_the_odd_ones_rank_first(scored):
    rows, _ = scored
    assert len(rows) == 3 * EACH + ODD
    assert all("page_" in row["id"] for row in rows[:ODD])


def test_the_first_say_why_and_name_what_is_near(scored):
    rows, _ = scored
    told = [row for row in rows if row["reason"] != "fits this batch"]
    assert [int(row["rank"]) for row in told] == [1, 2, 3]  # 2% of 154
    for row in told:
        assert "nearest are" in row["reason"]
        assert "page_" in row["reason"]


def test_nothing_else_is_flagged_and_a_warning_says_why(scored):
    rows, result = scored
    assert {row["is_outlier"] for row in rows[ODD:]} == {"false"}
    assert "as varied as those that the model knows" in result.stdout + result.stderr
    scores = np.array([float(row["outlier_score"]) for row in rows])
    assert abs(np.median(scores)) < 0.5
    assert scores[ODD - 1] > 2 * scores[ODD]
