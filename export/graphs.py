"""Export of the torch modules to ONNX graphs with the service's inputs and outputs.

    encoder   `images` uint8 (N, H, W, C) -> `latents` float32 (N, 2, L): mean, logvar
    decoder   `latents` float32 (N, L) -> `images` uint8 (N, H, W, C): the expected image
    saliency  `images` uint8 (N, H, W, C) -> `saliency` float32 (N, L, h, w): where each latent's mean is read;
              of convolutional networks only

Scaling, layout and sigmoid are part of the graph, so a client cannot normalise wrongly.
"""

from __future__ import annotations

import warnings

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from train.models.vae import VAE

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
    """Heat maps of each latent's mean: sum_c A_c d mean_k / d A_c at every position of the last convolution.

    A_c is channel c of the activations. This is HiResCAM (Draelos & Carin 2020): Grad-CAM without its average of the
    gradient over positions. That average suits networks with pooling. This encoder has separate weights for every
    position; with the average the map of "object hue" highlights the wall as often as the object.

    Linear layers with LeakyReLU follow the activations, so the mean is a sum over positions. Each position contributes
    to every hidden unit, the unit's slope scales the contribution, and the next layer's weights sum it. A map adds up
    to the latent's mean except for the contribution of the biases.
    """

    by_position: Tensor
    to_mean: Tensor

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        layers = list(vae.encoder)
        flatten = next(place for place, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
        self.convolutions = nn.Sequential(*layers[:flatten])
        first, *between, output = [layer for layer in layers[flatten:] if isinstance(layer, nn.Linear)]
        self.first_bias = first.bias
        self.between = nn.ModuleList(between)
        self.leak = vae.leak
        channels = [layer for layer in layers[:flatten] if isinstance(layer, nn.Conv2d)][-1].out_channels
        by_position = first.weight.detach().reshape(first.out_features, channels, -1).permute(2, 1, 0)
        self.register_buffer("by_position", by_position.contiguous())  # (h * w, C, hidden)
        self.register_buffer("to_mean", output.weight.detach()[: vae.latent_dim].T.contiguous())  # (hidden, L)

    def forward(self, images: Tensor) -> Tensor:
        activations = self.convolutions(_scaled(images))  # (N, C, h, w)
        shares = activations.flatten(2).permute(2, 0, 1) @ self.by_position  # (h * w, N, hidden)
        units = shares.sum(dim=0) + self.first_bias  # (N, hidden)
        for layer in self.between:
            slope = torch.where(units > 0, 1.0, self.leak)
            shares, units = (slope * shares) @ layer.weight.T, layer(slope * units)
        gathered = (torch.where(units > 0, 1.0, self.leak) * shares) @ self.to_mean  # (h * w, N, L)
        maps: Tensor = gathered.permute(1, 2, 0).unflatten(2, activations.shape[2:])
        return maps


def _scaled(images: Tensor) -> Tensor:
    """Convert uint8 (N, H, W, C) to the networks' input, (N, C, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255


def encoder(vae: VAE) -> bytes:
    """Return the encoder as a serialised ONNX graph, for any number of images."""
    example = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    return export(_Encoder(vae), (example,), ("images",), "latents")


def decoder(vae: VAE) -> bytes:
    """Return the decoder as a serialised ONNX graph, for any number of latents."""
    return export(_Decoder(vae), (torch.zeros(2, vae.latent_dim),), ("latents",), "images")


def saliency(vae: VAE) -> bytes | None:
    """Return the heat maps of every latent as a serialised ONNX graph, for any number of images.

    The result is None without convolutions, since a perceptron's hidden units have no position in the image.
    """
    if not any(isinstance(layer, nn.Conv2d) for layer in vae.encoder):
        return None
    example = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    return export(_Saliency(vae), (example,), ("images",), "saliency")


def export(module: nn.Module, example: tuple[Tensor, ...], input_names: tuple[str, ...], output_name: str) -> bytes:
    """Return `module` as a serialised ONNX graph of one output, for any number of rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export warns about its own tree utilities
        warnings.filterwarnings("ignore", "# The axis name")  # that all inputs have the same number of rows
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(input_names),
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("N")},)
            * len(example),  # the example's batch of 2 keeps 1 from being special
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = _without_traces(program.model_proto)
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _without_traces(graph: ModelProto) -> ModelProto:
    """Remove the exporter's metadata, which holds source paths of the exporting machine, and return the graph."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for entry in (*graph.graph.node, *graph.graph.initializer, *graph.graph.value_info):
        del entry.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    return graph
