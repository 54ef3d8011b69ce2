"""Networks for tests of the pipeline, which encode and decode as each test says."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from service.bundle.manifest import Capabilities
from service.core.detect.reconstruction import reconstruction_error
from service.inference.protocol import CheckedLatents


class FakeNetworks:
    """Networks that encode and decode as a subclass says, and can do everything."""

    capabilities = Capabilities(can_decode=True, has_saliency=True, has_uncertainty=True)

    @abstractmethod
    async def encode(self, images: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    async def decode(self, latents: np.ndarray) -> np.ndarray: ...

    async def encode_checked(self, images: np.ndarray) -> CheckedLatents:
        latents = await self.encode(images)
        error = reconstruction_error(images, await self.decode(latents[:, 0]))
        return CheckedLatents(latents.astype(np.float32), error.astype(np.float32))

    async def encode_screened(self, images: np.ndarray) -> CheckedLatents:
        """Leave every image open."""
        return await self.encode_checked(images)
