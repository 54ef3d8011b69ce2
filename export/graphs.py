"""Torch modules -> ONNX graphs with the service's contract: uint8 images outside, latents in between.

    encoder   `images` uint8 (N, H, W, C) -> `latents` float32 (N, 2, L): mean, logvar
    decoder   `latents` float32 (N, L) -> `images` uint8 (N, H, W, C): the expected image

Scaling, layout and sigmoid are part of the graph, so no client can normalise wrongly.
"""

from __future__ import annotations

import warnings

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from train.networks import VAE

OPSET = 20


class _Encoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        mean, logvar = self.vae.encode(images.permute(0, 3, 1, 2).float() / 255)  # (N, H, W, C) -> (N, C, H, W)
        return torch.stack((mean, logvar), dim=1)


class _Decoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        grey_levels = (self.vae.decode(latents).sigmoid() * 255).round()  # half to even, as numpy rounds
        return grey_levels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)


def encoder(vae: VAE) -> bytes:
    """The encoder as a serialised ONNX graph, for any number of images."""
    example = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    return _export(_Encoder(vae), example, "images", "latents")


def decoder(vae: VAE) -> bytes:
    """The decoder as a serialised ONNX graph, for any number of latents."""
    return _export(_Decoder(vae), torch.zeros(2, vae.latent_dim), "latents", "images")


def _export(module: nn.Module, example: Tensor, input_name: str, output_name: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export warns about its own tree utilities
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("N")},),  # the example's batch of 2 keeps 1 from being special
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = _without_traces(program.model_proto)
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _without_traces(graph: ModelProto) -> ModelProto:
    """The same graph without the exporter's notes, which hold source paths of the exporting machine."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for entry in (*graph.graph.node, *graph.graph.initializer, *graph.graph.value_info):
        del entry.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    return graph
