"""The variational autoencoder: images (N, C, H, W) in [0, 1] to latents (N, L) and back."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from train.config.experiment import ImageShape, Network

KERNEL, STRIDE, PADDING = 4, 2, 1


class VAE(nn.Module):
    """A variational autoencoder with Bernoulli pixels (Kingma & Welling 2014), convolutional or fully connected.

    `image_shape` is (height, width, channels). Raises ValueError unless height and width are multiples of 2 to the
    power of the number of convolutions.
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
        """Return logits (N, C, H, W) of latents (N, L). Their sigmoid is the expected image."""
        logits: Tensor = self.decoder(latents)
        return logits


def channels_last(model: VAE) -> VAE:
    """Return the model in channels-last memory format, the layout of uint8 images.

    The CPU convolves up to twice as fast.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return model
