"""Torch modules -> ONNX graphs with the service's contract: uint8 images outside, latents in between.

    encoder   `images` uint8 (N, H, W, C) -> `latents` float32 (N, 2, L): mean, logvar
    decoder   `latents` float32 (N, L) -> `images` uint8 (N, H, W, C): the expected image
    saliency  `images` uint8 (N, H, W, C) -> `saliency` float32 (N, L, h, w): where each latent's mean is read

Scaling, layout and sigmoid are part of the graph, so no client can normalise wrongly.
"""

from __future__ import annotations

import warnings

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from train.networks import LEAK, VAE

OPSET = 20


class _Encoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        mean, logvar = self.vae.encode(_scaled(images))
        return torch.stack((mean, logvar), dim=1)


class _Decoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        grey_levels = (self.vae.decode(latents).sigmoid() * 255).round()  # half to even, as numpy rounds
        return grey_levels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)


class _Saliency(nn.Module):
    """Grad-CAM (Selvaraju et al. 2017) of every latent's mean at the encoder's last convolution, with its sign.

    The map of latent k is sum_c alpha_kc A_c, where A_c is channel c of the activations and alpha_kc the mean over
    positions of d mean_k / d A_c. Two linear layers with a LeakyReLU between them follow, so that the gradient is
    W2_k diag(slope) W1, and its mean over positions needs no more of W1 than W1's own.
    """

    per_channel: Tensor
    to_mean: Tensor

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        *convolutions, _flatten, hidden, _activation, output = vae.encoder
        assert isinstance(hidden, nn.Linear)
        assert isinstance(output, nn.Linear)
        self.convolutions = nn.Sequential(*convolutions)
        self.hidden = hidden
        channels = [layer for layer in convolutions if isinstance(layer, nn.Conv2d)][-1].out_channels
        per_channel = hidden.weight.detach().reshape(hidden.out_features, channels, -1).mean(dim=2)
        self.register_buffer("per_channel", per_channel)  # (hidden, C)
        self.register_buffer("to_mean", output.weight.detach()[: vae.latent_dim])  # (L, hidden)

    def forward(self, images: Tensor) -> Tensor:
        activations = self.convolutions(_scaled(images))  # (N, C, h, w)
        slope = torch.where(self.hidden(activations.flatten(1)) > 0, 1.0, LEAK)  # (N, hidden)
        alpha = (slope[:, None] * self.to_mean) @ self.per_channel  # (N, L, C)
        maps: Tensor = (alpha @ activations.flatten(2)).unflatten(2, activations.shape[2:])
        return maps


def _scaled(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C) -> what the networks take, (N, C, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255


def encoder(vae: VAE) -> bytes:
    """The encoder as a serialised ONNX graph, for any number of images."""
    example = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    return _export(_Encoder(vae), example, "images", "latents")


def decoder(vae: VAE) -> bytes:
    """The decoder as a serialised ONNX graph, for any number of latents."""
    return _export(_Decoder(vae), torch.zeros(2, vae.latent_dim), "latents", "images")


def saliency(vae: VAE) -> bytes:
    """The heat maps of every latent as a serialised ONNX graph, for any number of images."""
    example = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    return _export(_Saliency(vae), example, "images", "saliency")


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
