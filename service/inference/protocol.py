"""The interface of the networks, wherever they run."""

from __future__ import annotations

from typing import Protocol

from service.core.types import Float32Array
from service.images.spec import Uint8Array


class Networks(Protocol):
    """The networks, row by row; the transport says where they run."""

    async def encode(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to latents (n, 2, L)."""

    async def encode_checked(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to (n, 2L + 1): the same latents, and how far off the picture is that they give.

        Where that is all one asks of the picture, it need not travel (`service.core.detect.ood.reconstruction_error`).
        """

    async def decode(self, latents: Float32Array) -> Uint8Array:
        """Latents (n, L) to uint8 (n, H, W, C)."""

    async def saliency(self, images: Uint8Array) -> Float32Array:
        """uint8 (n, H, W, C) to signed heat maps (n, L, h, w) of where each latent's mean is read."""
