"""The parity check of the export: it refuses a graph that does not compute the same as the trained network.

The reference is a second implementation in numpy around the bare network, so the check detects errors in the graph's
scaling, layout or rounding as well as errors in its weights. The reference of the heat maps is autograd.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from service.bundle.manifest import Parity
from service.core.population import Population
from train.models.vae import VAE

BATCH_SIZES = (1, 2, 7, 350)
LATENTS_RELATIVE = 1e-4
SALIENCY_RELATIVE = 1e-4
PIXELS_GREY_LEVELS = 1
# A hidden unit this near to the kink of its LeakyReLU, relative to the largest, may be on either side of it: rounding
# decides, and the gradient jumps there.
KINK = 1e-5

Images = NDArray[np.uint8]
Latents = NDArray[np.float32]
Maps = NDArray[np.float32]


class ParityError(Exception):
    """ONNX Runtime and PyTorch differ, so the bundle must not be written."""


def check(
    vae: VAE, encoder: bytes, decoder: bytes, saliency: bytes | None, population: Population, seed: int = 0
) -> Parity:
    """Compare the graphs with `vae` (float32) on the CPU and return the largest differences.

    Encoder and heat maps get noise, smooth colour fields and the network's own images at every batch size; the decoder
    gets latents drawn from the population. Latents and heat maps differ relative to the scale of their tensor, max|onnx
    - torch| / max|torch|, with mean and logvar apart. Pixels differ in grey levels. The comparison of heat maps leaves
    out images with a hidden unit at its kink, and is skipped for perceptrons.

    Raises ParityError where a graph has another output shape or type, or differs by more than LATENTS_RELATIVE,
    SALIENCY_RELATIVE or PIXELS_GREY_LEVELS.
    """
    encode = ort.InferenceSession(encoder, providers=["CPUExecutionProvider"])
    decode = ort.InferenceSession(decoder, providers=["CPUExecutionProvider"])
    explain = ort.InferenceSession(saliency, providers=["CPUExecutionProvider"]) if saliency else None
    random = np.random.default_rng(seed)
    latents_relative, saliency_relative, pixels = 0.0, 0.0, 0
    for batch in BATCH_SIZES:
        latents = _population_latents(population, batch, random)
        decoded = _torch_decode(vae, latents)
        (actual,) = decode.run(["images"], {"latents": latents})
        pixels = max(pixels, _pixel_difference(actual, decoded))
        for images in (_noise(vae, batch, random), _smooth(vae, batch, random), decoded):
            (actual,) = encode.run(["latents"], {"images": images})
            latents_relative = max(latents_relative, _latent_difference(actual, _torch_encode(vae, images)))
            if explain:
                (actual,) = explain.run(["saliency"], {"images": images})
                saliency_relative = max(saliency_relative, _map_difference(actual, *_torch_saliency(vae, images)))
    return Parity(
        batch_sizes=BATCH_SIZES,
        latents_relative=latents_relative,
        pixels_grey_levels=pixels,
        saliency_relative=saliency_relative if explain else None,
    )


def _torch_encode(vae: VAE, images: Images) -> Latents:
    with torch.inference_mode():
        mean, logvar = vae.encode(_scaled(images))
    return np.stack((mean.numpy(), logvar.numpy()), axis=1)


def _torch_saliency(vae: VAE, images: Images) -> tuple[Maps, NDArray[np.bool_]]:
    """Return heat maps (N, L, h, w) by autograd, and a mask (N,) of the images without a hidden unit near its kink."""
    last = max(place for place, layer in enumerate(vae.encoder) if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        activations = vae.encoder[: last + 2](_scaled(images))
    activations.requires_grad_()
    units, clear = activations, torch.ones(len(images), dtype=torch.bool)
    for layer in list(vae.encoder)[last + 2 :]:
        if isinstance(layer, nn.LeakyReLU):
            clear &= (units.abs() > KINK * units.abs().max()).all(dim=1)
        units = layer(units)
    mean = units[:, : vae.latent_dim]
    maps = []
    for latent in mean.unbind(dim=1):
        (gradient,) = torch.autograd.grad(latent.sum(), activations, retain_graph=True)
        maps.append((gradient * activations).sum(dim=1))
    return torch.stack(maps, dim=1).detach().numpy(), clear.numpy()


def _scaled(images: Images) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def _torch_decode(vae: VAE, latents: Latents) -> Images:
    with torch.inference_mode():
        expected = torch.sigmoid(vae.decode(torch.from_numpy(latents))).numpy()
    return np.ascontiguousarray(np.rint(expected * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _latent_difference(actual: Latents, expected: Latents) -> float:
    _same_kind("encoder", actual, expected)
    difference = np.abs(actual - expected).max(axis=(0, 2))  # (2,): mean, logvar
    relative = float((difference / np.abs(expected).max(axis=(0, 2))).max())
    if not relative <= LATENTS_RELATIVE:  # "not" also refuses nan
        raise ParityError(
            f"latents of {len(actual)} images differ by {relative:.2e} of their scale between PyTorch and "
            f"ONNX Runtime; at most {LATENTS_RELATIVE:.0e} is allowed"
        )
    return relative


def _map_difference(actual: Maps, expected: Maps, clear: NDArray[np.bool_]) -> float:
    _same_kind("saliency", actual, expected)
    difference = np.abs(actual - expected)[clear if clear.any() else ...].max()
    relative = float(difference / np.abs(expected).max())
    if not relative <= SALIENCY_RELATIVE:
        raise ParityError(
            f"heat maps of {len(actual)} images differ by {relative:.2e} of their scale between PyTorch and "
            f"ONNX Runtime; at most {SALIENCY_RELATIVE:.0e} is allowed"
        )
    return relative


def _pixel_difference(actual: Images, expected: Images) -> int:
    _same_kind("decoder", actual, expected)
    difference = int(np.abs(actual.astype(np.int16) - expected).max())
    if difference > PIXELS_GREY_LEVELS:
        raise ParityError(
            f"{len(actual)} decoded images differ by up to {difference} grey levels between PyTorch and "
            f"ONNX Runtime; at most {PIXELS_GREY_LEVELS} is allowed"
        )
    return difference


def _same_kind(graph: str, actual: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise ParityError(
            f"the {graph} graph gave {actual.dtype} {actual.shape}; PyTorch gives {expected.dtype} {expected.shape}"
        )


def _population_latents(population: Population, batch: int, random: np.random.Generator) -> Latents:
    covariance = population.covariance + np.diag(population.posterior_variance)
    return random.multivariate_normal(population.location, covariance, size=batch).astype(np.float32)


def _noise(vae: VAE, batch: int, random: np.random.Generator) -> Images:
    return random.integers(0, 256, size=(batch, *vae.image_shape), dtype=np.uint8)


def _smooth(vae: VAE, batch: int, random: np.random.Generator) -> Images:
    """Return images with a colour in each corner and a smooth transition between them."""
    height, width, channels = vae.image_shape
    down, across = np.linspace(0, 1, height), np.linspace(0, 1, width)
    corners = random.uniform(0, 255, size=(batch, 2, 2, channels))
    weights = [np.stack((1 - position, position)) for position in (down, across)]
    images: Images = np.einsum("nabc,ah,bw->nhwc", corners, *weights).astype(np.uint8)
    return images
