"""Export a backbone of timm by its name: python -m export.timm_backbone NAME --out FILE.onnx

    `images` uint8 (N, H, W, 3) -> `features` float32 (N, C, h, w)

Size, mean and standard deviation of the pixels are those that the weights were trained with, and part of the graph.
The features are the last map of a convolutional network, or the tokens of a transformer's patches. timm downloads the
weights (`pip install "misfit[timm]"`). `misfit learn --backbone NAME` runs this.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export import graphs
from export.backbone import PARITY_IMAGES, largest_difference
from service.bundle.backbone_file import PROVENANCE

# The largest difference of pooled features from PyTorch's, in units of their spread over images.
TOLERANCE = 1e-3


class TimmFeatures(nn.Module):
    """The features (N, C, h, w) of images uint8 (N, H, W, 3), by a model of timm."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment] # timm's modules are untyped
        channels, self.height, self.width = config["input_size"]
        if channels != 3:
            raise ValueError(f"the model takes images of {channels} channels; a backbone takes colour images (3)")
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        scaled = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        model: Any = self.model
        features: Tensor = model.forward_features(scaled)
        channels = model.num_features
        if features.ndim == 3:  # tokens (N, T, C), those of the class and of registers first
            tokens = features[:, getattr(model, "num_prefix_tokens", 0) :]
            return tokens.transpose(1, 2).reshape(-1, channels, *model.patch_embed.grid_size)
        if features.shape[1] != channels and features.shape[3] == channels:  # (N, h, w, C)
            features = features.permute(0, 3, 1, 2)
        return features


def export(name: str, out: Path, *, pretrained: bool = True) -> dict[str, object]:
    """Write the graph of timm's model `name` to `out`, and its provenance beside it; return the provenance.

    `pretrained` False leaves the weights as they are drawn, for tests. Raises ImportError where timm is not installed,
    and ValueError where there is no such model, its weights cannot be had, or the graph computes something else.
    """
    import timm

    try:
        model = timm.create_model(name, pretrained=pretrained).eval()
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"the weights of timm's model {name!r} cannot be had: {str(error).splitlines()[0]} Check the name "
            "(timm.list_models) and the connection: weights are downloaded once."
        ) from error
    module = TimmFeatures(model).eval()
    example = torch.zeros(2, module.height, module.width, 3, dtype=torch.uint8)
    with torch.no_grad():
        shape = tuple(module(example).shape)
    if len(shape) != 4:
        raise ValueError(f"{name} gives features {shape}; a backbone's are (N, C, h, w)")
    graph = graphs.export(module, (example,), ("images",), "features")
    difference = largest_difference(module, graph, (module.height, module.width))
    if difference > TOLERANCE:
        raise ValueError(f"pooled features differ by {difference:.1e} of their spread; at most {TOLERANCE} may be")
    config = model.pretrained_cfg
    provenance: dict[str, object] = {
        "name": f"{name} (timm)",
        "source": f"timm {timm.__version__}",
        "origin": config.get("hf_hub_id") or config.get("url") or "not stated",
        "trained_on": "as timm states" if pretrained else "nothing: the weights are random",
        "licence": config.get("license") or "not stated",
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "parity": {"images": PARITY_IMAGES, "pooled_features_relative": difference},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(graph)
    out.with_name(PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n")
    return provenance


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a model of timm and return the exit code: 0, or 1 for an error that the message explains."""
    parser = argparse.ArgumentParser(prog="python -m export.timm_backbone", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="of a model of timm, such as vit_small_patch14_dinov2")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the ONNX file to write")
    parser.add_argument("--random-weights", action="store_true", help="download nothing: for tests only")
    options = parser.parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        provenance = export(options.name, options.out, pretrained=not options.random_weights)
    except ImportError as error:
        print(f'error: {error}. Install it with: pip install "misfit[timm]"', file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {provenance['name']}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
