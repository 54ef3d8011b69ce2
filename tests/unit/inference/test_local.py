"""The networks in this process, and how their two outputs travel as one array."""

import numpy as np

from service.inference.local import LocalNetworks
from service.inference.onnx_runtime import OnnxNetworks
from service.inference.protocol import CheckedLatents
from service.inference.wire_format import pack, unpack


async def test_local_networks_give_what_the_graphs_give(served_bundle, images):
    local, graphs = LocalNetworks(served_bundle), OnnxNetworks(served_bundle)
    assert local.capabilities == served_bundle.manifest.capabilities
    latents = await local.encode(images)
    assert np.array_equal(latents, graphs.encode(images))
    checked = await local.encode_checked(images)
    assert np.array_equal(checked.latents, latents)
    means = np.ascontiguousarray(latents[:, 0])
    assert np.array_equal(await local.decode(means), graphs.decode(means))
    if local.capabilities.has_saliency:
        assert np.array_equal(await local.saliency(images[:2]), graphs.saliency(images[:2]))


def test_checked_latents_survive_packing_and_being_cut_and_joined():
    random = np.random.default_rng(0)
    checked = CheckedLatents(random.normal(size=(7, 2, 5)).astype(np.float32), random.normal(size=7).astype(np.float32))
    parts = np.split(pack(checked), [1, 4])  # as BentoML cuts an adaptive batch for its requests
    unpacked = unpack(np.concatenate(parts))
    assert np.array_equal(unpacked.latents, checked.latents)
    assert np.array_equal(unpacked.reconstruction_error, checked.reconstruction_error)
    assert len(unpack(parts[1]).latents) == 3
