"""Refit the linear layers of a trained network to new latents. The convolutions stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from train.models.inference import CHUNK, to_tensor
from train.models.vae import VAE

NARROWEST = 0.05  # posterior standard deviation from which a missed target is counted
HEAD_STEPS, HEAD_BATCH = 1_800, 256


def refit(
    model: VAE,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mean: Tensor,
    logvar: Tensor,
    weight: Tensor,
    *,
    decoded: Tensor,
) -> None:
    """Refit `model` to the latents `mean` and `logvar` (n, L) of the given rows of images (N, H, W, C).

    The decoder is fitted to compute from them what it computed from `decoded` (n, L) before. `weight` (n, L) weights
    the error of each latent of each image.
    """
    features = features_of(model, images, rows)
    head = head_of(model.decoder)
    with torch.inference_mode():
        hidden = torch.cat([head(part) for part in torch.split(decoded, CHUNK)])
    refit_encoder(model, features, mean, logvar, weight)
    refit_decoder(model, features, hidden)


def refit_encoder(model: VAE, features: NDArray[np.float16], mean: Tensor, logvar: Tensor, weight: Tensor) -> None:
    """Fit the encoder's linear layers to map `features` (N, units) to `mean` and `logvar` (N, L)."""
    head = head_of(model.encoder)
    unit = torch.exp(0.5 * logvar).clamp(min=NARROWEST)

    def loss_of(drawn: Tensor) -> Tensor:
        told_mean, told_logvar = head(torch.from_numpy(features[drawn.numpy()].astype(np.float32))).chunk(2, dim=1)
        missed = ((told_mean - mean[drawn]) / unit[drawn]).abs() + 0.3 * (told_logvar - logvar[drawn]).abs()
        loss: Tensor = (weight[drawn] * missed).sum(1).mean()
        return loss

    _refit(head, loss_of, len(mean), 1e-3)


def refit_decoder(model: VAE, features: NDArray[np.float16], hidden: Tensor) -> None:
    """Fit the decoder's linear layers to map the encoder's latents of `features` to `hidden` (N, units)."""
    with torch.inference_mode():
        head = head_of(model.encoder)
        told = torch.cat(
            [head(torch.from_numpy(features[start : start + CHUNK].astype(np.float32)))
             for start in range(0, len(features), CHUNK)]
        )  # fmt: skip
    mean, logvar = told.clone().chunk(2, dim=1)
    head = head_of(model.decoder)
    spread = hidden.var()

    def loss_of(drawn: Tensor) -> Tensor:
        latents = mean[drawn] + torch.exp(0.5 * logvar[drawn]) * torch.randn(len(drawn), model.latent_dim)
        return F.mse_loss(head(latents), hidden[drawn]) / spread

    _refit(head, loss_of, len(mean), 2e-3)


def _refit(head: nn.Sequential, loss_of: Callable[[Tensor], Tensor], count: int, rate: float) -> None:
    head.requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, HEAD_STEPS, pct_start=0.1)
    for _ in range(HEAD_STEPS):
        loss = loss_of(torch.randint(count, (HEAD_BATCH,)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def head_of(stack: nn.Sequential) -> nn.Sequential:
    """Return the linear layers of an encoder or a decoder, with the activations between them."""
    layers = list(stack)
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.Flatten):
            return nn.Sequential(*layers[place + 1 :])
        if isinstance(layer, nn.Unflatten):
            return nn.Sequential(*layers[:place])
    raise AssertionError("every encoder flattens and every decoder unflattens")


@torch.inference_mode()
def features_of(model: VAE, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return the inputs (len(rows), units) of the encoder's linear layers."""
    convolutions = model.encoder[: len(model.encoder) - len(head_of(model.encoder))]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([convolutions(to_tensor(images[chunk])).half().numpy() for chunk in chunks])
