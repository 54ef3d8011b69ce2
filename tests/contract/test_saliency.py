"""Heat maps: the graph computes what autograd computes, and the service runs it a tile at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export import graphs
from service.bundle import store
from service.bundle.manifest import FORMAT_VERSION, ImageSpec, Manifest, Parity
from service.bundle.store import Bundle
from service.core.latent import Latent
from service.core.population import Population
from service.inference.onnx_runtime import OnnxNetworks
from train.config.experiment import Network
from train.models.vae import VAE

LATENT_DIM = 4
IMAGE_SHAPE = (16, 24, 3)
GRID = (4, 6)
LAST_CONVOLUTION = 4  # layers: convolution, LeakyReLU, convolution, LeakyReLU


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(IMAGE_SHAPE, Network(channels=(8, 16), hidden=(32,), latent_dim=LATENT_DIM)).eval()


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, size=(40, *IMAGE_SHAPE), dtype=np.uint8)


def by_autograd(vae: VAE, image: NDArray[np.uint8], latent: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (C, h, w) of the last convolution, and the gradient of one mean with regard to them."""
    scaled = torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None]
    activations = vae.encoder[:LAST_CONVOLUTION](scaled).detach().requires_grad_()
    mean = vae.encoder[LAST_CONVOLUTION:](activations)[0, latent]
    (gradient,) = torch.autograd.grad(mean, activations)
    return activations.detach()[0], gradient[0]


def heat_map(vae: VAE, image: NDArray[np.uint8], latent: int) -> NDArray[np.float32]:
    activations, gradient = by_autograd(vae, image, latent)
    total = torch.zeros(GRID)
    for channel in range(len(activations)):
        total += gradient[channel] * activations[channel]
    return total.numpy()


def grad_cam(vae: VAE, image: NDArray[np.uint8], latent: int) -> NDArray[np.float32]:
    """As its paper says, gradient averaged over positions, but for the final ReLU."""
    activations, gradient = by_autograd(vae, image, latent)
    total = torch.zeros(GRID)
    for channel in range(len(activations)):
        total += gradient[channel].mean() * activations[channel]
    return total.numpy()


def run(vae: VAE, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = ort.InferenceSession(graphs.saliency(vae), providers=["CPUExecutionProvider"])
    (maps,) = session.run(["saliency"], {"images": images})
    return np.asarray(maps)


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_graph_computes_what_autograd_computes(images: NDArray[np.uint8], seed: int) -> None:
    vae = network(seed)
    maps = run(vae, images[:5])
    assert (maps.shape, maps.dtype) == ((5, LATENT_DIM, *GRID), np.float32)
    assert_close(
        maps, np.array([[heat_map(vae, image, latent) for latent in range(LATENT_DIM)] for image in images[:5]])
    )
    assert (maps > 0).any(), "evidence for more of a latent"
    assert (maps < 0).any(), "evidence for less of it"


def test_it_is_grad_cam_where_the_encoder_pools(images: NDArray[np.uint8]) -> None:
    """With the same weights at every position the gradient is its own average."""
    vae = network()
    with torch.no_grad():
        weights = vae.encoder[-3].weight.view(32, 16, -1)
        weights[:] = weights.mean(dim=2, keepdim=True) * 4
    assert_close(
        run(vae, images[:5]),
        np.array([[grad_cam(vae, image, latent) for latent in range(LATENT_DIM)] for image in images[:5]]),
    )


def test_a_map_adds_up_to_its_latent_but_for_the_biases(images: NDArray[np.uint8]) -> None:
    vae = network()
    with torch.no_grad():
        vae.encoder[-3].bias.zero_()
        vae.encoder[-1].bias.zero_()
        mean, _ = vae.encode(torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255)))
    assert_close(run(vae, images).sum(axis=(2, 3)), mean.numpy())


def test_no_image_gives_no_map(images: NDArray[np.uint8]) -> None:
    assert run(network(), images[:0]).shape == (0, LATENT_DIM, *GRID)


# --- in the service


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    vae = network()
    latents = np.random.default_rng(1).normal(size=(50, 2, LATENT_DIM))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model="small",
        image=ImageSpec(height=16, width=24, channels=3),
        latent_dim=LATENT_DIM,
        latents=tuple(Latent(index=index, name=f"latent {index}", dead=False) for index in range(LATENT_DIM)),
        parity=Parity(batch_sizes=(), latents_relative=0, pixels_grey_levels=0, saliency_relative=0),
        metrics={},
        training={},
        data={},
        licence="CC0-1.0",
    )
    content = {
        "encoder.onnx": graphs.encoder(vae),
        "decoder.onnx": graphs.decoder(vae),
        "saliency.onnx": graphs.saliency(vae),
    }
    directory: Path = tmp_path_factory.mktemp("bundles") / "small"
    return store.write(directory, manifest, content, Population.from_latents(latents))


def test_the_service_draws_the_same_maps_whatever_their_neighbours(
    small_bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    networks = OnnxNetworks(small_bundle)
    assert networks.capabilities.has_saliency
    together = networks.saliency(images)
    assert (together.shape, together.dtype) == ((40, LATENT_DIM, *GRID), np.float32)
    assert_close(together, run(network(), images))
    for position in (0, 31, 32, 39):
        assert np.array_equal(networks.saliency(images[position : position + 1])[0], together[position])
