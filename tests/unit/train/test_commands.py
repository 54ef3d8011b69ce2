"""The commands of `python -m train` on small data: every preset runs, is measured, drawn and kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
h5py = pytest.importorskip("h5py")

from train.__main__ import main  # noqa: E402
from train.config.presets import PRESETS  # noqa: E402
from train.data import folder  # noqa: E402
from train.data.dsprites import dataset as dsprites  # noqa: E402
from train.data.shapes3d import dataset as shapes3d  # noqa: E402
from train.reports import results  # noqa: E402
from train.reports.experiments import EXPERIMENTS, page  # noqa: E402
from train.training import checkpoint, loop  # noqa: E402

IMAGES = 120
STEPS = 200


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """A small file or folder of every data set, in the layout of the whole one."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    classes = rng.integers(dsprites.FACTOR_SIZES, size=(IMAGES, 5))
    sprites = np.hstack([np.zeros((IMAGES, 1), np.int64), classes])
    np.savez(root / "dsprites.npz", imgs=dsprites.frames(classes), latents_classes=sprites)

    classes = rng.integers(shapes3d.FACTOR_SIZES, size=(IMAGES, 6))
    with h5py.File(root / "3dshapes.h5", "w") as file:
        file["images"] = rng.integers(0, 256, (IMAGES, 64, 64, 3), dtype=np.uint8)
        file["labels"] = np.stack(
            [values[column] for values, column in zip(shapes3d.FACTOR_VALUES, classes.T, strict=True)], axis=1
        )

    (root / "images" / "a").mkdir(parents=True)
    (root / "images" / "b").mkdir()
    for number in range(IMAGES):
        side = rng.integers(16, 40, 2)
        image = Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8))
        image.save(root / "images" / "ab"[number % 2] / f"{number}.png")
    return {
        "mnist": Path("tests/data/mnist"),
        "dsprites": root / "dsprites.npz",
        "shapes3d": root / "3dshapes.h5",
        "folder": root / "images",
    }


def run(name: str, data: dict[str, Path], out: Path, *more: str) -> int:
    path = str(data[PRESETS[name]().dataset])
    return main(["run", name, "--data", path, "--out", str(out), "--set", "training_batch=8", *more])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_is_measured_drawn_and_kept(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "CACHE", tmp_path / "cache")
    assert run(name, data, tmp_path / "run", "--steps", str(STEPS)) == 0
    assert main(["results", str(tmp_path / "run"), "--out", str(tmp_path / "results")]) == 0

    directory = tmp_path / "results" / name
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["config"]["preset"]["name"] == name
    assert metrics["step"] == json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert abs(metrics["step"] - STEPS) <= 2
    assert metrics["seconds"] > 0
    assert all(math.isfinite(value) for value in metrics["final_losses"].values())
    assert {"loss", "reconstruction_nll"} <= metrics["final_losses"].keys()
    assert 0 < metrics["metrics"]["perfect_nll"] + 1 < metrics["metrics"]["mean_image_nll"] + 1
    figures = {path.stem for path in directory.glob("*.png")}
    expected = {"losses", "reconstructions", "traversals"}
    expected |= {"morphs"} if name == "mnist_vae" else set()
    expected |= {"mutual_information"} if metrics["factors"] else set()
    assert figures == expected

    text = page(tmp_path / "results")
    assert f"![losses]({name}/losses.png)" in text or name not in EXPERIMENTS
    assert all(f"## {experiment}" in text for experiment in EXPERIMENTS)
    assert text.count("Not run to its end yet.") == len(EXPERIMENTS) - (name in EXPERIMENTS)


def test_a_run_that_stops_goes_on_and_only_the_whole_one_is_kept(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ("--steps", "8", "--precision", "fp32")
    assert run("dsprites_gamma_vae_cnn_decay", data, whole, *more) == 0
    assert run("dsprites_gamma_vae_cnn_decay", data, parts, *more, "--until", "4") == 0
    assert "at step 4 of 8; --resume goes on" in capsys.readouterr().out
    assert main(["results", str(parts), "--out", str(tmp_path)]) == 2
    assert "run `python -m train evaluate" in capsys.readouterr().err
    assert run("dsprites_gamma_vae_cnn_decay", data, parts, *more, "--resume") == 0
    lines = [
        [{**json.loads(line), "images_per_second": 0} for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4

    record = json.loads((parts / "evaluation.json").read_text())
    (parts / "evaluation.json").write_text(json.dumps(record | {"step": 4}))
    assert main(["results", str(parts), "--out", str(tmp_path)]) == 2
    assert "evaluated at 4" in capsys.readouterr().err


def test_the_size_of_a_folders_images_is_chosen_on_the_command_line(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder, "CACHE", tmp_path / "cache")
    assert run("folder", data, tmp_path / "run", "--steps", "2", "--size", "28", "--channels", "1") == 0
    assert checkpoint.load_model(tmp_path / "run").image_shape == (28, 28, 1)
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data["folder"])]) == 0
    assert "warning: only 120 images" in capsys.readouterr().err
    for arguments, message in (
        (["folder"], "name their folder with --data"),
        (["mnist_vae", "--size", "32"], "--size and --channels are for the preset folder"),
        (["folder", "--size", "30", "--data", str(data["folder"])], "multiple of 4"),
        (["folder", "--data", str(tmp_path / "nowhere")], "is not a folder"),
    ):
        assert main(["run", *arguments, "--out", str(tmp_path / "other")]) == 2
        assert message in capsys.readouterr().err


def test_fidelity_and_list_print_what_they_find(capsys):
    assert main(["fidelity", "dsprites"]) == 0
    assert "all 160 frames: 96.25% exact, at worst 4 pixels off" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PRESETS)


def test_an_unfaithful_rendering_fails(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 2, (2, 64, 64), dtype=np.uint8)
    np.savez(tmp_path / "frames.npz", frames=frames)
    (tmp_path / "frames.csv").write_text("shape,scale,orientation,position_x,position_y\n0,0,0,0,0\n1,1,1,1,1\n")
    assert main(["fidelity", "dsprites", "--frames", str(tmp_path)]) == 2
    assert "not faithful" in capsys.readouterr().err


def test_seconds_come_from_the_speed_of_every_stretch():
    records = [{"step": 50, "images_per_second": 100.0}, {"step": 60, "images_per_second": 50.0}]
    assert results.seconds(records, training_batch=10) == pytest.approx(50 * 10 / 100 + 10 * 10 / 50)


def test_final_losses_are_means_over_the_last_lines():
    records = [{"step": step, "kl": float(step), "beta": 4.0, "loss": 1.0} for step in range(20)]
    assert results.final_losses(records) == {"kl": pytest.approx(14.5), "loss": 1.0}
