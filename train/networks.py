"""Encoders and decoders: images (N, C, H, W) in [0, 1] <-> latents (N, L)."""

from __future__ import annotations

from torch import Tensor, nn

from train.presets import ConvNetwork

KERNEL, STRIDE, PADDING = 4, 2, 1
LEAK = 0.2


class VAE(nn.Module):
    """A convolutional variational autoencoder with Bernoulli pixels (Kingma & Welling 2014).

    image_shape is (height, width, channels); height and width must be divisible by 2 once per convolution.
    """

    def __init__(self, image_shape: tuple[int, int, int], network: ConvNetwork) -> None:
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
        grid = (network.channels[-1], height // shrink, width // shrink)
        features = grid[0] * grid[1] * grid[2]

        widths = (channels, *network.channels)
        convolutions: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            convolutions += [nn.Conv2d(inputs, outputs, KERNEL, STRIDE, PADDING), nn.LeakyReLU(LEAK)]
        self.encoder = nn.Sequential(
            *convolutions,
            nn.Flatten(),
            nn.Linear(features, network.hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(network.hidden, 2 * network.latent_dim),
        )

        widths = widths[::-1]
        deconvolutions: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            deconvolutions += [nn.LeakyReLU(LEAK), nn.ConvTranspose2d(inputs, outputs, KERNEL, STRIDE, PADDING)]
        self.decoder = nn.Sequential(
            nn.Linear(network.latent_dim, network.hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(network.hidden, features),
            nn.Unflatten(1, grid),
            *deconvolutions,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (N, C, H, W) in [0, 1] -> mean, logvar, each (N, L)."""
        mean, logvar = self.encoder(images).chunk(2, dim=1)
        return mean, logvar

    def decode(self, latents: Tensor) -> Tensor:
        """latents (N, L) -> logits (N, C, H, W); their sigmoid is the expected image."""
        logits: Tensor = self.decoder(latents)
        return logits
