"""Networks as the pipeline wants them: of the tests' own, and a bundle's in this process."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from service.core.detect.ood import reconstruction_error
from service.inference.onnx_runtime import Networks


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


class InProcess:
    """A bundle's networks, in this thread."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    async def encode(self, images: np.ndarray) -> np.ndarray:
        return self._networks.encode(images)

    async def encode_checked(self, images: np.ndarray) -> np.ndarray:
        return self._networks.encode_checked(images)

    async def decode(self, latents: np.ndarray) -> np.ndarray:
        return self._networks.decode(latents)
