"""What networks of the tests' own have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from service.foreign import reconstruction_error


class FakeNetworks:
    """Networks that encode and decode as a test says: looking at what was drawn follows from both."""

    @abstractmethod
    async def encode(self, images: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    async def decode(self, latents: np.ndarray) -> np.ndarray: ...

    async def encode_checked(self, images: np.ndarray) -> np.ndarray:
        latents: Any = await self.encode(images)
        error = reconstruction_error(images, await self.decode(latents[:, 0]))
        return np.column_stack([latents.reshape(len(images), -1), error]).astype(np.float32)
