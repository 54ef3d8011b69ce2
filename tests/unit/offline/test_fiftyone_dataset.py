"""Scores for FiftyOne: what its importer reads. `make labelling` has FiftyOne itself read a whole batch."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from service.api.score_records import ScoreRow
from service.cli.main import cli
from service.images.pictures.heat_map import overlays
from service.offline.heat_map_files import name_heat_map
from service.offline.scores_table import write_scores


@pytest.fixture
def evidence():
    return np.linspace(0, 1, 48).reshape(1, 6, 8)


@pytest.fixture
def folder(tmp_path, evidence):
    """Images, their scores, and a heat map of one latent of the flagged one."""
    (tmp_path / "images/a").mkdir(parents=True)
    for name in ("a/1.png", "a/2.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / name)
    (tmp_path / "images/broken.png").write_bytes(b"nothing")
    paths = [str(tmp_path / "images" / name) for name in ("a/1.png", "a/2.png", "broken.png")]
    shares = json.dumps({"wall hue": 4.0, "x/y": 1.0})
    rows = [
        ScoreRow("a", "a/1.png", paths[0], 2, -1.0, 0.1, False, False, 1.0),
        ScoreRow("a", "a/2.png", paths[1], 1, 5.0, 0.9, True, False, 9.0, "hue", attributions=shares),
        ScoreRow("", "broken.png", paths[2], None, None, None, None, None, None, error="no image"),
    ]
    write_scores(tmp_path / "scores.csv", rows, None)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    heat_map = tmp_path / "maps" / name_heat_map("a", "a/2.png", "wall hue")
    heat_map.parent.mkdir(parents=True)
    Image.fromarray(overlays(pixels, evidence)[0]).save(heat_map)
    return tmp_path


def convert(folder, *options):
    arguments = ["convert", folder / "scores.csv", "--to", "fiftyone", "--out", folder / "out", *options]
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_samples_have_scores_reasons_and_heat_maps_as_fields(folder, evidence):
    result = convert(folder, "--maps", folder / "maps")
    assert result.exit_code == 0, result.output
    normal, flagged, broken = json.loads((folder / "out/samples.json").read_text())["samples"]
    assert flagged["filepath"] == str(folder / "images/a/2.png")
    assert flagged["outlier_score"] == 5.0
    assert flagged["reason"] == "hue"
    assert flagged["attributions"] == {"wall_hue": 4.0, "x_y": 1.0}
    assert (normal["tags"], flagged["tags"], broken["tags"]) == ([], ["outlier"], ["unreadable"])
    heat_map = flagged["heat_map_wall_hue"]
    assert heat_map["_cls"] == "Heatmap"
    shown = np.asarray(Image.open(folder / "out" / heat_map["map_path"]))
    assert np.abs(shown / 255 - evidence[0]).max() < 0.02
    assert heat_map["map_path"].startswith("fields/heat_map_wall_hue/")
    assert not [name for name in (*normal, *broken) if name.startswith("heat_map")]
    assert json.loads((folder / "out/metadata.json").read_text())["media_type"] == "image"


def test_paths_may_start_at_a_folder_and_what_cannot_work_writes_nothing(folder):
    assert convert(folder, "--root", folder / "images").exit_code == 0
    (first, *_) = json.loads((folder / "out/samples.json").read_text())["samples"]
    assert first["filepath"] == "a/1.png"
    assert "is there already" in convert(folder).stderr
    (folder / "images/a/1.png").unlink()
    before = {path.name for path in folder.iterdir()}
    result = convert(folder, "--out", folder / "other")
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert "1.png is no file" in result.stderr
    assert {path.name for path in folder.iterdir()} == before
