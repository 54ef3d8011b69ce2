"""The networks in this process: for offline scoring, benchmarks and tests, where no server runs."""

from __future__ import annotations

import asyncio

from service.bundle.manifest import Capabilities
from service.bundle.store import Bundle
from service.core.types import Float32Array
from service.images.spec import Uint8Array
from service.inference.onnx_runtime import OnnxNetworks
from service.inference.protocol import CheckedLatents


class LocalNetworks:
    """A bundle's networks, run in threads of this process so that the event loop stays free.

    Raises what `OnnxNetworks` raises.
    """

    def __init__(self, bundle: Bundle, *, require_gpu: bool = False) -> None:
        self._networks = OnnxNetworks(bundle, require_gpu=require_gpu)

    @property
    def capabilities(self) -> Capabilities:
        return self._networks.capabilities

    @property
    def provider(self) -> str:
        """Return the ONNX Runtime execution provider that runs the networks."""
        return self._networks.provider

    async def encode(self, images: Uint8Array) -> Float32Array:
        return await asyncio.to_thread(self._networks.encode, images)

    async def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        return await asyncio.to_thread(self._networks.encode_checked, images)

    async def decode(self, latents: Float32Array) -> Uint8Array:
        return await asyncio.to_thread(self._networks.decode, latents)

    async def saliency(self, images: Uint8Array) -> Float32Array:
        return await asyncio.to_thread(self._networks.saliency, images)
