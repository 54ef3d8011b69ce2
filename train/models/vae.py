"""The variational autoencoder: images (N, C, H, W) in [0, 1] to latents (N, L) and back.

The same class serves convolutional networks and multilayer perceptrons.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from train.config.experiment import ImageShape, Network

KERNEL, STRIDE, PADDING = 4, 2, 1


class VAE(nn.Module):
    """A variational autoencoder with Bernoulli pixels (Kingma & Welling 2014).

    `image_shape` is (height, width, channels). Height and width must be divisible by 2 once for each convolution;
    ValueError otherwise. Without convolutions the encoder and the decoder are multilayer perceptrons.
    """

    def __init__(self, image_shape: ImageShape, network: Network) -> None:
        super().__init__()
        height, width, channels = image_shape
        shrink = STRIDE ** len(network.channels)
        if height % shrink or width % shrink:
            raise ValueError(
                f"images of {height}x{width} do not fit {len(network.channels)} convolutions of stride {STRIDE}: "
                f"both sides must be multiples of {shrink}"
            )
        self.image_shape = image_shape
        self.latent_dim = network.latent_dim
        self.leak = network.leak
        widths = (channels, *network.channels)
        grid = (widths[-1], height // shrink, width // shrink)
        units = (grid[0] * grid[1] * grid[2], *network.hidden)

        convolutions: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            convolutions += [nn.Conv2d(inputs, outputs, KERNEL, STRIDE, PADDING), nn.LeakyReLU(self.leak)]
        hidden: list[nn.Module] = []
        for inputs, outputs in pairwise(units):
            hidden += [nn.Linear(inputs, outputs), nn.LeakyReLU(self.leak)]
        self.encoder = nn.Sequential(*convolutions, nn.Flatten(), *hidden, nn.Linear(units[-1], 2 * network.latent_dim))

        deconvolutions: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[::-1]):
            deconvolutions += [nn.LeakyReLU(self.leak), nn.ConvTranspose2d(inputs, outputs, KERNEL, STRIDE, PADDING)]
        hidden = [nn.Linear(network.latent_dim, units[-1])]
        for inputs, outputs in pairwise(units[::-1]):
            hidden += [nn.LeakyReLU(self.leak), nn.Linear(inputs, outputs)]
        self.decoder = nn.Sequential(*hidden, nn.Unflatten(1, grid), *deconvolutions)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar, each (N, L), of images (N, C, H, W) in [0, 1]."""
        mean, logvar = self.encoder(images).chunk(2, dim=1)
        return mean, logvar

    def decode(self, latents: Tensor) -> Tensor:
        """Return logits (N, C, H, W) of latents (N, L). The sigmoid of the logits is the expected image."""
        logits: Tensor = self.decoder(latents)
        return logits


def channels_last(model: VAE) -> VAE:
    """Convert `model` to the channels-last memory format in place and return it.

    uint8 images have that layout already, and the CPU convolves up to twice as fast in it.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return model


def half_width(network: Network) -> Network:
    """Return `network` with half the features in every layer. A step takes about a third of the time."""
    channels, hidden = (tuple(width // 2 for width in widths) for widths in (network.channels, network.hidden))
    return replace(network, channels=channels, hidden=hidden)


def double_width(model: VAE, network: Network) -> VAE:
    """Return a VAE of `network` that computes the same function as `model`, which is of `half_width(network)`.

    This is Net2WiderNet (Chen, Goodfellow & Shlens 2016): every feature is copied, and the weights that read the two
    copies share the old weight. Random differences that cancel are added to the shares. The copies then receive
    different gradients and diverge in training.
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


Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def _weighted(stack: nn.Module) -> list[Weighted]:
    return [layer for layer in stack.children() if isinstance(layer, Weighted)]


def _bias(layer: Weighted) -> Tensor:
    assert layer.bias is not None, "every layer here is built with a bias"
    return layer.bias
