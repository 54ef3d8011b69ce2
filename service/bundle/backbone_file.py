"""The backbones that come with misfit: pretrained networks that turn photographs into features."""

from __future__ import annotations

from pathlib import Path

BACKBONES = Path(__file__).parents[1] / "backbones"
DEFAULT_BACKBONE = "efficientnet_lite0"
# `images` uint8 (N, H, W, 3) -> `features` float32 (N, C, h, w)
FEATURES = "features.onnx"
# Where the weights come from, their licence, and how well the graph agrees with the original.
PROVENANCE = "backbone.json"
