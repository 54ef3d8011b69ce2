"""Backbones of timm by name, with a module in timm's place: it has the few things that the export asks of it."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from export import timm_backbone  # noqa: E402
from service.bundle.backbone_file import PROVENANCE  # noqa: E402
from service.inference.features import FeatureNetwork  # noqa: E402

CONFIG = {"input_size": (3, 32, 32), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "license": "mit"}


class Model(nn.Module):
    """A network whose features have one of timm's three layouts."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.pretrained_cfg = {**CONFIG, "input_size": (1, 32, 32)} if layout == "grey" else CONFIG
        self.num_features, self.num_prefix_tokens = 6, 1
        self.patch_embed = SimpleNamespace(grid_size=(4, 4))
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 6, 8, stride=8)

    def forward_features(self, images):
        maps = self.layer(images)
        if self.layout == "channels_last":
            return maps.permute(0, 2, 3, 1)
        if self.layout == "tokens":
            tokens = maps.flatten(2).transpose(1, 2)
            return torch.cat([torch.full_like(tokens[:, :1], 1e6), tokens], dim=1)
        return maps


@pytest.fixture(autouse=True)
def timm(monkeypatch):
    def create_model(name, pretrained):
        if name == "unknown":
            raise RuntimeError("Unknown model (unknown)")
        if pretrained:
            raise FileNotFoundError("An error happened while trying to locate the file on the Hub.")
        return Model(name)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, __version__="1.2"))


@pytest.mark.parametrize("layout", ["maps", "channels_last", "tokens"])
def test_every_layout_becomes_a_graph_with_its_preprocessing(tmp_path, layout):
    path = tmp_path / "made" / "model.onnx"
    assert timm_backbone.main([layout, "--out", str(path), "--random-weights"]) == 0
    network = FeatureNetwork(path)
    assert (network.image.shape, network.channels) == ((32, 32, 3), 6)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    scaled = (pixels / 255 - CONFIG["mean"]) / CONFIG["std"]
    with torch.no_grad():
        expected = Model("maps").layer(torch.from_numpy(scaled).float().permute(0, 3, 1, 2)).mean((2, 3))
    np.testing.assert_allclose(network.pooled(pixels), expected, rtol=1e-4, atol=1e-4)
    provenance = json.loads(path.with_name(PROVENANCE).read_text())
    assert provenance["licence"] == "mit"
    assert "random" in provenance["trained_on"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unknown"], "Unknown model"),
        (["maps"], "weights are downloaded once"),
        (["grey", "--random-weights"], "images of 1 channels"),
    ],
)
def test_what_cannot_be_had_is_explained(tmp_path, capsys, arguments, message):
    assert timm_backbone.main([*arguments, "--out", str(tmp_path / "model.onnx")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_timm_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert timm_backbone.main(["maps", "--out", str(tmp_path / "model.onnx")]) == 1
    assert 'pip install "misfit[timm]"' in capsys.readouterr().err
