"""What an evaluation measures, on a small run of squares."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from train.config.experiment import BetaVAE, Network, Preset  # noqa: E402
from train.data.dataset import Dataset  # noqa: E402
from train.evaluation import evaluate  # noqa: E402
from train.training import loop  # noqa: E402

NETWORK = Network(channels=(), hidden=(32,), latent_dim=4, leak=0.0)
PRESET = Preset("tiny", "squares", NETWORK, BetaVAE(), 300, 32, 3e-3, 3e-3)


@pytest.fixture(scope="module")
def squares() -> Dataset:
    """A square in one of 6 x 6 places, labelled by its half."""
    rng = np.random.default_rng(0)
    factors = rng.integers(6, size=(2_000, 2))
    images = np.zeros((2_000, 8, 8, 1), np.uint8)
    for image, (row, column) in zip(images, factors, strict=True):
        image[row : row + 3, column : column + 3] = 255
    labels = (factors[:, 0] > 2).astype(np.int64)
    return Dataset(images, factors, ("row", "column"), (6, 6), "squares", "drawn by a test", labels, ("up", "down"))


def test_an_evaluation_holds_every_measure(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "SUITE_FEWEST", 100)
    loop.run(PRESET, squares, tmp_path, precision="fp32")
    result = evaluate.evaluate(tmp_path, squares)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads(json.dumps(result))
    metrics = result["metrics"]
    shares = ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap", "label_accuracy")
    shares += ("infomec_modularity", "infomec_explicitness", "infomec_compactness")
    assert all(0 <= metrics[name] <= 1 for name in shares)
    assert metrics["dci_informativeness"] > 0.5
    assert metrics["label_accuracy"] > 0.8
    assert metrics["perfect_nll"] == 0
    assert metrics["reconstruction_nll"] < 0.7 * metrics["mean_image_nll"]
    kl = sum(metrics[name] for name in ("mutual_information", "total_correlation", "dimension_wise_kl"))
    assert sum(result["latent_kl"]) == pytest.approx(kl, rel=0.2), "the closed form and the estimate from samples"
    assert metrics["live_latents"] == sum(value > 0.05 for value in result["latent_kl"])


def test_few_held_out_images_are_not_taken_for_a_measurement(squares, tmp_path):
    loop.run(PRESET, squares, tmp_path, precision="fp32", until=20)
    metrics = evaluate.evaluate(tmp_path, squares)["metrics"]
    assert not {"sap", "label_accuracy", "dci_completeness"} & metrics.keys()
    assert "mig" in metrics


def test_the_bounds_of_the_nll_are_what_they_are_called():
    images = np.array([0, 255, 51], np.uint8).reshape(1, 1, 3, 1)
    train = np.array([[0, 255, 255], [0, 255, 0]], np.uint8).reshape(2, 1, 3, 1)
    bounds = evaluate._nll_bounds(images, train)
    grey = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert bounds["perfect_nll"] == pytest.approx(grey)
    unlikely = 0.5 / 3  # black twice in training, and a grey pixel more
    assert bounds["mean_image_nll"] == pytest.approx(-2 * math.log(1 - unlikely) + math.log(2))
