"""A picture decoder for latents that another model defines: of a learned folder, whose encoder is a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.config.experiment import Network
from train.models.subpixel_deconv import use_subpixel_convolution
from train.models.vae import VAE

# Pictures are drawn at this size. The graph enlarges them to the size of the bundle's images.
SIDE = 64
CHANNELS, HIDDEN = (32, 64, 128, 256), (256,)


class LatentDecoder(nn.Module):
    """Latents (N, L) to logits (N, 3, SIDE, SIDE); their sigmoid is the picture.

    The layers are those of the VAE's decoder. `location` and `scale`, (L,) each, standardise the latents.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)
        network = Network(channels=CHANNELS, hidden=HIDDEN, latent_dim=len(location))
        self.layers = VAE((SIDE, SIDE, 3), network).decoder
        use_subpixel_convolution(self.layers)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it

    def forward(self, latents: Tensor) -> Tensor:
        """Return logits (N, 3, SIDE, SIDE) of latents (N, L)."""
        logits: Tensor = self.layers((latents - self.location) / self.scale)
        return logits
