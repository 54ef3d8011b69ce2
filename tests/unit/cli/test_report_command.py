"""`misfit report`: a table becomes a report, with pictures where the images and the bundle are there."""

import base64
import gzip
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.api.score_records import GroupSummary, ScoreRow, TableInfo
from service.bundle import store
from service.cli.main import cli
from service.offline.scores_table import write_scores
from service.settings import BUNDLES

BATCH = Path(__file__).parents[2] / "data" / "shapes3d_batch.zip"
MISFITS = ("14.png", "35.png")
NORMAL = tuple(f"{number:02}.png" for number in range(10))
BUNDLE_ID = store.load(BUNDLES / "shapes3d").manifest.bundle_id


def invoke(*arguments):
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def table(path, rows, bundle_id=BUNDLE_ID):
    write_scores(
        path, rows, TableInfo(bundle_id, "shapes3d", {}, {"": GroupSummary(len(rows), 0, 2, 0.1, "high", "e")})
    )
    return path


def rows_at(place):
    names = (*MISFITS, *NORMAL)
    return [
        ScoreRow("", name, f"{place}{name}", rank, 1.0 / rank, 0.9 if rank <= 2 else 0.1, rank <= 2, False, 4.0)
        for rank, name in enumerate(names, start=1)
    ]


def read_report(path):
    (content,) = re.findall(r'<script id="report"[^>]*>([^<]*)<', path.read_text(encoding="utf-8"))
    return json.loads(gzip.decompress(base64.b64decode(content)))


def test_flagged_images_get_heat_maps_and_counterfactuals(tmp_path):
    scores = table(tmp_path / "scores.jsonl", rows_at(f"{BATCH}!/"))
    result = invoke(scores, "--out", tmp_path / "r.html", "--title", "Shapes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "12 images" in result.stdout
    data = read_report(tmp_path / "r.html")
    assert (data["title"], data["live_latents"], len(data["thumbnails"]["tiles"])) == ("Shapes", 6, 12)
    assert list(data["pictures"]) == ["0", "1"]
    assert all(
        each["heat_maps"] and "changed" in each["counterfactual"]["caption"] for each in data["pictures"].values()
    )
    assert data["groups"][0]["drift"] > 0


def test_images_that_have_moved_are_found_in_the_folder_that_is_named(tmp_path):
    (tmp_path / "moved").mkdir()
    with zipfile.ZipFile(BATCH) as batch:
        batch.extractall(tmp_path / "moved", [*MISFITS, *NORMAL[:5]])
    scores = table(tmp_path / "scores.csv", rows_at("/gone/"))
    result = invoke(scores, "--out", tmp_path / "r.html", "--images", tmp_path / "moved", "--pictures", 0)
    assert result.exit_code == 0, result.output
    assert len(read_report(tmp_path / "r.html")["thumbnails"]["tiles"]) == 7


def test_what_cannot_be_drawn_is_said_and_the_report_is_written(tmp_path):
    for scores, note in (
        (table(tmp_path / "a.csv", rows_at("/gone/")), "is not here"),
        (table(tmp_path / "b.jsonl", rows_at("/gone/")), "image files are not there"),
        (table(tmp_path / "c.jsonl", rows_at(f"{BATCH}!/"), "another"), "is not here"),
        (table(tmp_path / "d.jsonl", [replace(row, is_outlier=True) for row in rows_at(f"{BATCH}!/")]), "fewer than"),
    ):
        result = invoke(scores, "--out", tmp_path / "r.html")
        assert (result.exit_code, result.stderr.startswith("note: ")) == (0, True), result.output
        assert note in result.stderr
        assert read_report(tmp_path / "r.html")["pictures"] == {}


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        (None, [], 2, "does not exist"),
        ("a,b\n1,2\n", [], 4, "has no column group"),
        ("\udcff", [], 4, "is no table of scores"),
        ("rows", ["--out", "scores.csv/r.html"], 4, "scores.csv/r.html"),
        ("rows", ["--bundle", "no such bundle"], 4, "no such bundle"),
        ("rows", ["--pictures", "-1"], 2, "not in the range"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(tmp_path, monkeypatch, content, options, code, message):
    monkeypatch.chdir(tmp_path)
    scores = tmp_path / "scores.csv"
    if content == "rows":
        table(scores, rows_at("/gone/"))
    elif content is not None:
        scores.write_text(content, encoding="utf-8", errors="surrogateescape")
    before = set(tmp_path.iterdir())
    result = invoke(scores, *options)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert code == 2 or len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert set(tmp_path.iterdir()) == before


def test_a_bundle_that_is_named_must_be_the_table_s_own(tmp_path):
    scores = table(tmp_path / "scores.jsonl", rows_at(f"{BATCH}!/"))
    result = invoke(scores, "--out", tmp_path / "r.html", "--bundle", "mnist")
    assert result.exit_code == 4
    assert "mnist is not the bundle" in result.stderr
