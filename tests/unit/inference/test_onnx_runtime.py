"""ONNX Runtime sessions: what they refuse, and that a row's result does not depend on its neighbours."""

import dataclasses
import shutil

import numpy as np
import pytest

from service.bundle.manifest import DECODER, SALIENCY, ImageSpec
from service.core.detect.reconstruction import reconstruction_error
from service.errors import AcceleratorMissing, BundleCorrupt, BundleIncompatible, BundleMissing
from service.inference import onnx_runtime
from service.inference.onnx_runtime import OnnxNetworks


@pytest.fixture(scope="module")
def networks(served_bundle):
    return OnnxNetworks(served_bundle)


@pytest.fixture(scope="module")
def rows(served_bundle):
    shape = (40, *served_bundle.manifest.image.shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def with_files(bundle, files):
    return dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"files": files, "screen": None}))


@pytest.mark.parametrize("size", [1, 32, 33])
def test_shapes_and_types(networks, served_bundle, rows, size):
    latent_dim = served_bundle.manifest.latent_dim
    latents = networks.encode(rows[:size])
    assert (latents.shape, latents.dtype) == ((size, 2, latent_dim), np.float32)
    images = networks.decode(latents[:, 0])
    assert (images.shape, images.dtype) == ((size, *served_bundle.manifest.image.shape), np.uint8)


def test_a_row_is_encoded_to_the_same_bits_whatever_its_neighbours(networks, rows):
    together = networks.encode(rows)
    for position in (0, 13, 31, 32, 39):
        assert np.array_equal(networks.encode(rows[position : position + 1])[0], together[position])
    order = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(networks.encode(rows[order]), together[order])


@pytest.mark.parametrize("network", ["encode", "encode_checked", "decode", "saliency"])
def test_a_tile_of_any_size_has_the_bits_of_a_full_one(networks, served_bundle, rows, network):
    """What the check at start has seen of a few sizes holds for all of them, wherever a row stands."""
    given = rows[:32]
    if network == "decode":
        given = np.random.default_rng(3).standard_normal((32, served_bundle.manifest.latent_dim), np.float32)
    whole = networks.run_tile(network, given)
    for size in range(1, 32):
        start = (7 * size) % (33 - size)
        for part, output in zip(networks.run_tile(network, given[start : start + size]), whole, strict=True):
            assert np.array_equal(part, output[start : start + size]), size


def test_a_network_whose_bits_depend_on_the_size_of_a_tile_is_padded(served_bundle, rows, monkeypatch):
    def depends_on_size(session, name, tile):
        (result,) = session.run(None, {name: tile})
        return result + np.asarray(len(tile) % 2, result.dtype) if name == "latents" else result

    monkeypatch.setattr(onnx_runtime, "_run", depends_on_size)
    networks = OnnxNetworks(served_bundle)
    computed = {network: networks.computed_rows(network, 3) for network in ("encode", "decode", "encode_checked")}
    assert computed == {"encode": 3, "decode": 32, "encode_checked": 32}
    latents = np.zeros((3, served_bundle.manifest.latent_dim), np.float32)
    assert np.array_equal(networks.decode(latents)[:1], networks.decode(latents[:1]))


def test_what_is_checked_on_the_way_is_what_each_network_would_say(networks, rows):
    together = networks.encode_checked(rows)
    assert together.latents.dtype == together.reconstruction_error.dtype == np.float32
    assert np.array_equal(together.latents, networks.encode(rows))
    decoded = networks.decode(np.ascontiguousarray(together.latents[:, 0]))
    assert np.array_equal(together.reconstruction_error, reconstruction_error(rows, decoded).astype(np.float32))
    for position in (0, 31, 32, 39):
        alone = networks.encode_checked(rows[position : position + 1])
        assert np.array_equal(alone.latents[0], together.latents[position])
        assert alone.reconstruction_error[0] == together.reconstruction_error[position]


def test_a_row_is_decoded_to_the_same_bytes_whatever_its_neighbours(networks, served_bundle):
    latents = np.random.default_rng(2).standard_normal((40, served_bundle.manifest.latent_dim)).astype(np.float32)
    together = networks.decode(latents)
    for position in (0, 31, 32, 39):
        assert np.array_equal(networks.decode(latents[position : position + 1])[0], together[position])


@pytest.mark.parametrize(
    "change",
    [
        {"image": ImageSpec(height=32, width=64, channels=3)},
        {"image": ImageSpec(height=64, width=64, channels=1)},
        {"latent_dim": 3},
    ],
)
def test_graphs_of_another_shape_than_the_manifests_are_refused(served_bundle, change):
    other = dataclasses.replace(served_bundle, manifest=served_bundle.manifest.model_copy(update=change))
    with pytest.raises(BundleIncompatible, match=r"encoder\.onnx"):
        OnnxNetworks(other)


def test_exchanged_graphs_are_refused(served_bundle, tmp_path):
    shutil.copy(served_bundle.directory / "encoder.onnx", tmp_path / "decoder.onnx")
    shutil.copy(served_bundle.directory / "decoder.onnx", tmp_path / "encoder.onnx")
    with pytest.raises(BundleIncompatible):
        OnnxNetworks(dataclasses.replace(with_files(served_bundle, {}), directory=tmp_path))


def test_a_bundle_without_heat_maps_serves_all_the_rest(served_bundle, rows):
    files = {name: sha256 for name, sha256 in served_bundle.manifest.files.items() if name != SALIENCY}
    without = OnnxNetworks(with_files(served_bundle, files))
    assert not without.capabilities.has_saliency
    assert len(without.encode(rows[:2])) == 2
    with pytest.raises(BundleMissing, match=r"saliency\.onnx"):
        without.saliency(rows[:2])


def test_a_bundle_without_a_decoder_encodes(served_bundle, networks, rows):
    files = {name: sha256 for name, sha256 in served_bundle.manifest.files.items() if name != DECODER}
    without = OnnxNetworks(with_files(served_bundle, files))
    assert not without.capabilities.can_decode
    assert np.array_equal(without.encode(rows[:2]), networks.encode(rows[:2]))
    for call in (lambda: without.decode(np.zeros((1, 2), np.float32)), lambda: without.encode_checked(rows[:2])):
        with pytest.raises(BundleMissing, match=r"decoder\.onnx"):
            call()


@pytest.mark.parametrize("other", ["encoder.onnx", "decoder.onnx"])
def test_another_graph_in_the_place_of_the_heat_maps_is_refused(served_bundle, tmp_path, other):
    for name in ("encoder.onnx", "decoder.onnx"):
        shutil.copy(served_bundle.directory / name, tmp_path / name)
    shutil.copy(served_bundle.directory / other, tmp_path / SALIENCY)
    bundle = with_files(served_bundle, {**served_bundle.manifest.files, SALIENCY: "0" * 64})
    with pytest.raises(BundleIncompatible, match=r"saliency\.onnx"):
        OnnxNetworks(dataclasses.replace(bundle, directory=tmp_path))


def test_a_graph_that_is_none_is_refused(served_bundle, tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleCorrupt, match=r"encoder\.onnx"):
        OnnxNetworks(dataclasses.replace(served_bundle, directory=tmp_path))


def test_a_required_gpu_that_is_missing_is_an_error(served_bundle, networks):
    if networks.provider != "CPUExecutionProvider":
        pytest.skip("there is a GPU")
    with pytest.raises(AcceleratorMissing, match="CPUExecutionProvider"):
        OnnxNetworks(served_bundle, require_gpu=True)


@pytest.mark.parametrize("there", ["gpu", "libraries", ""])
def test_a_gpu_that_was_meant_and_cannot_be_used_is_warned_of(served_bundle, networks, monkeypatch, caplog, there):
    if networks.provider != "CPUExecutionProvider":
        pytest.skip("there is a GPU")
    monkeypatch.setattr(onnx_runtime, "has_gpu", lambda: there == "gpu")
    monkeypatch.setattr(onnx_runtime, "find_spec", lambda name: name if there == "libraries" else None)
    OnnxNetworks(served_bundle)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == (["no GPU can be used: the networks run on CPUExecutionProvider"] if there else [])
