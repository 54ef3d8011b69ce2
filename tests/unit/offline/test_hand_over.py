"""Scores for labelling tools: what their published formats ask for."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from PIL import Image

from service.api.score_records import ScoreRow, ScoresTable, TableInfo
from service.cli.main import cli
from service.errors import InvalidInput
from service.offline.hand_over import to_cvat, to_label_studio
from service.offline.scores_table import write_scores


@pytest.fixture
def table(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / name)
    rows = [
        ScoreRow("", "a.png", str(tmp_path / "images/a.png"), 2, -1.0, 0.1, False, False, 1.0),
        ScoreRow("", "b.png", str(tmp_path / "images/b.png"), 1, 5.0, 0.9, True, False, 9.0, "hue <is> 3 sd\x07 off"),
        ScoreRow("", "c.png", str(tmp_path / "images/c.png"), None, None, None, None, None, None, error="no image"),
    ]
    return ScoresTable(rows, TableInfo("f00", "shapes3d"))


def test_label_studio_takes_tasks_with_predictions(table, tmp_path):
    tasks = json.loads(to_label_studio(table, tmp_path))
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=images/b.png",
        "/data/local-files/?d=images/a.png",
    ]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == 0.9
    assert prediction["result"] == [
        {"from_name": "misfit", "to_name": "image", "type": "choices", "value": {"choices": ["outlier"]}}
    ]
    assert json.loads(to_label_studio(table))[1]["data"]["image"] == table.rows[0].path
    with pytest.raises(InvalidInput, match="is not in"):
        to_label_studio(table, Path("/usr"))


def test_cvat_takes_images_with_tags(table, tmp_path):
    write_scores(tmp_path / "scores.csv", table.rows, table.info)
    out = tmp_path / "annotations.xml"
    result = CliRunner().invoke(cli, ["convert", str(tmp_path / "scores.csv"), "--to", "cvat", "--out", str(out)])
    assert result.exit_code == 0, result.output
    root = ElementTree.parse(out).getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    assert root.findtext("meta/task/labels/label/name") == "outlier"
    images = root.findall("image")
    assert [image.attrib for image in images] == [
        {"id": "0", "name": "a.png", "width": "6", "height": "4"},
        {"id": "1", "name": "b.png", "width": "6", "height": "4"},
    ]
    assert not images[0].findall("tag")
    tag = images[1].find("tag")
    assert tag.attrib == {"label": "outlier", "source": "auto"}
    assert {each.get("name"): each.text for each in tag} == {
        "outlier_probability": "0.9", "rank": "1", "reason": "hue <is> 3 sd off"
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="cannot be read"):
        to_cvat(ScoresTable([table.rows[0].__class__(**{**table.rows[0].__dict__, "path": "/nowhere"})]))
