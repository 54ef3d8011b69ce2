"""The networks in this process: the rows of all requests in adaptive batches, run in threads."""

from __future__ import annotations

from service.bundle.manifest import Capabilities
from service.bundle.store import Bundle
from service.core.types import Float32Array
from service.images.spec import Uint8Array
from service.inference.adaptive_batches import AdaptiveBatches, BatchHooks
from service.inference.onnx_runtime import OnnxNetworks
from service.inference.protocol import CheckedLatents


class LocalNetworks:
    """A bundle's networks, run in threads of this process so that the event loop stays free.

    Raises what `OnnxNetworks` raises.
    """

    def __init__(self, bundle: Bundle, *, require_gpu: bool = False, hooks: BatchHooks | None = None) -> None:
        networks = OnnxNetworks(bundle, require_gpu=require_gpu)
        self.capabilities: Capabilities = networks.capabilities
        self.provider = networks.provider
        self._batches = AdaptiveBatches(
            networks.run_tile, networks.tile_rows, networks.threads, networks.computed_rows, hooks
        )

    async def encode(self, images: Uint8Array) -> Float32Array:
        (latents,) = await self._batches.run("encode", images)
        return latents

    async def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        return CheckedLatents(*await self._batches.run("encode_checked", images))

    async def encode_screened(self, images: Uint8Array) -> CheckedLatents:
        return CheckedLatents(*await self._batches.run("encode_screened", images))

    async def decode(self, latents: Float32Array) -> Uint8Array:
        (images,) = await self._batches.run("decode", latents)
        return images

    async def saliency(self, images: Uint8Array) -> Float32Array:
        (maps,) = await self._batches.run("saliency", images)
        return maps

    async def get_provider(self) -> str:
        """Return the ONNX Runtime execution provider that runs the networks."""
        return self.provider

    async def is_ready(self) -> bool:
        """Return True: the networks are ready as soon as they have been opened."""
        return True
