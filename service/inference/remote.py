"""The networks in the service `Inference`, called over BentoML's socket.

A call is repeated where a stale connection breaks, and ends with an error once the networks' process has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from bentoml.exceptions import BentoMLException

from service.bundle.manifest import Capabilities
from service.core.types import Float32Array
from service.errors import InferenceUnavailable
from service.images.spec import Uint8Array
from service.inference.protocol import CheckedLatents
from service.inference.wire_format import unpack

PROBE_SECONDS = 3
CHECK_SECONDS = 0.3
# A busy process may miss a probe; one that misses so many in a row is gone.
PROBES_MISSED = 3
# How many connections may break under one call as it takes them up.
STALE_CONNECTIONS = 2


class RemoteNetworks:
    """The networks as the pipeline calls them. Every method is pure, so that a call may be repeated.

    Each raises InferenceUnavailable.
    """

    def __init__(
        self, inference: Any, capabilities: Capabilities, has_ended: Callable[[], bool] = lambda: False
    ) -> None:
        """Call the networks through BentoML's proxy `inference`. `has_ended` tells whether their process has ended."""
        self._inference, self._has_ended = inference, has_ended
        self.capabilities = capabilities

    async def encode(self, images: Uint8Array) -> Float32Array:
        latents: Float32Array = await self._call("encode", images)
        return latents

    async def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        return unpack(await self._call("encode_checked", images))

    async def encode_screened(self, images: Uint8Array) -> CheckedLatents:
        return unpack(await self._call("encode_screened", images))

    async def decode(self, latents: Float32Array) -> Uint8Array:
        images: Uint8Array = await self._call("decode", latents)
        return images

    async def saliency(self, images: Uint8Array) -> Float32Array:
        maps: Float32Array = await self._call("saliency", images)
        return maps

    async def get_provider(self) -> str:
        return str(await self._call("provider"))

    async def is_ready(self) -> bool:
        if self._has_ended():
            return False
        try:
            return bool(await self._inference.to_async.is_ready(timeout=PROBE_SECONDS))
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _call(self, method: str, *arguments: object) -> Any:
        call = getattr(self._inference.to_async, method)
        self._check_alive()
        try:
            for _ in range(STALE_CONNECTIONS):
                try:
                    return await self._await_while_ready(call(*arguments))
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    continue  # an idle connection that was just being closed: use another
            return await self._await_while_ready(call(*arguments))
        except (aiohttp.ClientError, BentoMLException, TimeoutError) as error:
            raise InferenceUnavailable(
                f"The networks' process does not answer: {type(error).__name__}.",
                "It may be starting, or gone: GET /readyz tells when it is back.",
            ) from error

    def _check_alive(self) -> None:
        if self._has_ended():
            raise InferenceUnavailable("The networks' process has ended.", "GET /readyz tells when it is back.")

    async def _await_while_ready(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return what `call` returns. Raise TimeoutError once Inference is gone, whose socket stays open."""
        task, missed_probes, loop = asyncio.create_task(call), 0, asyncio.get_running_loop()
        last_probe = loop.time()
        try:
            while not (await asyncio.wait({task}, timeout=CHECK_SECONDS))[0]:
                self._check_alive()
                if loop.time() < last_probe + PROBE_SECONDS:
                    continue
                missed_probes, last_probe = 0 if await self.is_ready() else missed_probes + 1, loop.time()
                if missed_probes == PROBES_MISSED:
                    raise TimeoutError
            return task.result()
        finally:
            task.cancel()
