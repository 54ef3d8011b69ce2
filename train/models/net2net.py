"""Net2Net: train a network of half the width first, then double its width without changing its output."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from train.config.experiment import Network
from train.models.vae import VAE

Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def half_width(network: Network) -> Network:
    """Return the network with half the features in every layer. A step takes about a third of the time."""
    channels, hidden = (tuple(width // 2 for width in widths) for widths in (network.channels, network.hidden))
    return replace(network, channels=channels, hidden=hidden)


def double_width(model: VAE, network: Network) -> VAE:
    """Return a VAE of architecture `network` that computes what `model`, of `half_width(network)`, computes.

    Net2WiderNet (Chen, Goodfellow & Shlens 2016): every feature is copied, and the weights that read a pair of copies
    sum to the old weight. Random differences that cancel are added to each pair, so that the copies receive different
    gradients.
    """
    wide = VAE(model.image_shape, network)
    for old_stack, new_stack in ((model.encoder, wide.encoder), (model.decoder, wide.decoder)):
        old_layers, new_layers = _weighted(old_stack), _weighted(new_stack)
        for place, (old, new) in enumerate(zip(old_layers, new_layers, strict=True)):
            inputs, outputs = (0, 1) if isinstance(old, nn.ConvTranspose2d) else (1, 0)
            weight, bias = old.weight.detach(), _bias(old).detach()
            if place < len(old_layers) - 1:
                weight, bias = torch.cat([weight, weight], outputs), torch.cat([bias, bias])
            if place > 0:
                difference = 0.25 * weight.std() * torch.randn_like(weight)
                weight = torch.cat([weight / 2 + difference, weight / 2 - difference], inputs)
            new.weight.data.copy_(weight)
            _bias(new).data.copy_(bias)
    return wide


def _weighted(stack: nn.Module) -> list[Weighted]:
    return [layer for layer in stack.children() if isinstance(layer, Weighted)]


def _bias(layer: Weighted) -> Tensor:
    assert layer.bias is not None, "every layer here is built with a bias"
    return layer.bias
