"""Calls to the networks' process: a connection that breaks as it is taken up is not the client's problem."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aiohttp
import numpy as np
import pytest

from service.bundle.manifest import Capabilities
from service.errors import InferenceUnavailable

CAPABILITIES = Capabilities(can_decode=True, has_saliency=True, has_uncertainty=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's own, as it is imported


class Flaky:
    """An Inference whose first calls fail with the given errors."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.to_async = SimpleNamespace(encode=self.encode, is_ready=self.is_ready)

    async def encode(self, images):
        if self.errors:
            raise self.errors.pop(0)
        return images * 2

    async def is_ready(self, timeout):
        return True


class Waiting(Flaky):
    """An Inference that never answers."""

    async def encode(self, images):
        await asyncio.Event().wait()


def networks(*errors: Exception):
    from service.inference.remote import RemoteNetworks

    return RemoteNetworks(Flaky(*errors), CAPABILITIES)


@pytest.mark.parametrize(
    "errors",
    [
        (),
        (aiohttp.ServerDisconnectedError(),),
        (aiohttp.ClientOSError(32, "Broken pipe"), aiohttp.ServerDisconnectedError()),
    ],
    ids=["none", "one", "two"],
)
async def test_a_connection_that_was_just_being_closed_is_replaced(errors):
    assert (await networks(*errors).encode(np.ones(3)) == 2).all()


async def test_a_process_that_is_gone_is_told():
    gone = [aiohttp.ClientOSError(111, "Connection refused")] * 10
    with pytest.raises(InferenceUnavailable, match="does not answer: ClientOSError"):
        await networks(*gone).encode(np.ones(3))


async def test_other_failures_are_not_tried_again():
    flaky = networks(aiohttp.ClientPayloadError(), aiohttp.ClientPayloadError())
    with pytest.raises(InferenceUnavailable, match="ClientPayloadError"):
        await flaky.encode(np.ones(3))


async def test_a_process_that_ends_meanwhile_is_told_at_once():
    from service.inference import remote

    ended = iter([False, False, True])
    waiting = remote.RemoteNetworks(Waiting(), CAPABILITIES, lambda: next(ended))
    began = asyncio.get_running_loop().time()
    with pytest.raises(InferenceUnavailable, match="has ended"):
        await waiting.encode(np.ones(3))
    assert asyncio.get_running_loop().time() - began < remote.PROBE_SECONDS  # by its lock, not by probes


async def test_a_process_that_has_ended_is_not_called():
    from service.inference.remote import RemoteNetworks

    gone = RemoteNetworks(Waiting(), CAPABILITIES, lambda: True)
    assert not await gone.is_ready()
    with pytest.raises(InferenceUnavailable, match="has ended"):
        await gone.encode(np.ones(3))
