"""The interface of the networks: what the pipeline asks of them, wherever they run and whatever model they are.

`service.inference.local` runs them in this process, `service.inference.remote` behind BentoML's socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from service.bundle.manifest import Capabilities
from service.core.types import Float32Array
from service.images.spec import Uint8Array


@dataclass(frozen=True)
class CheckedLatents:
    """The latents of n images, and how much of each image they do not know.

    latents               (n, 2, L)  mean and logvar
    reconstruction_error  (n,)       mean squared error in grey levels (see `service.core.detect.reconstruction`); nan
                                     where a screen saw that it is below the population's limit. Of a backbone bundle:
                                     how far off the learned photographs the content lies, in reaches
    """

    latents: Float32Array
    reconstruction_error: Float32Array


class Networks(Protocol):
    """The networks of one bundle. Every method works row by row: a row's result does not depend on the other rows."""

    @property
    def capabilities(self) -> Capabilities:
        """Return what the model can do. Callers must not call a method that needs more."""

    async def encode(self, images: Uint8Array) -> Float32Array:
        """Encode images, uint8 (n, H, W, C), to latents (n, 2, L): mean and logvar."""

    async def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        """Encode images, uint8 (n, H, W, C), and measure their reconstruction error. Needs `can_decode`.

        The reconstruction itself is not returned: where only its error is needed, the pixels need not travel.
        """

    async def encode_screened(self, images: Uint8Array) -> CheckedLatents:
        """Do the same, and measure only what the bundle's screen leaves open. Needs `manifest.screen`."""

    async def decode(self, latents: Float32Array) -> Uint8Array:
        """Decode latents (n, L) to images, uint8 (n, H, W, C). Needs `can_decode`."""

    async def saliency(self, images: Uint8Array) -> Float32Array:
        """Return heat maps (n, L, h, w), with sign, of where each latent's mean is read. Needs `has_saliency`.

        images  uint8 (n, H, W, C)
        """
