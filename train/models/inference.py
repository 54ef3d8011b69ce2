"""Encode and decode images with a trained model, in chunks that bound the memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from train.models.vae import VAE

CHUNK = 500


@torch.inference_mode()
def encode(model: VAE, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return mean and logvar, float32 (len(rows), 2, L), of the given rows of images, uint8 (N, H, W, C)."""
    chunks = [
        torch.stack(model.encode(to_tensor(images[rows[start : start + CHUNK]])), dim=1).numpy()
        for start in range(0, len(rows), CHUNK)
    ]
    return np.concatenate(chunks)


@torch.inference_mode()
def decode(model: VAE, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the expected images, uint8 (N, H, W, C), of latents (N, L)."""
    chunks = [
        (torch.sigmoid(model.decode(torch.from_numpy(latents[start : start + CHUNK]))) * 255)
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        .numpy()
        for start in range(0, len(latents), CHUNK)
    ]
    return np.concatenate(chunks)


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """Return images, uint8 (N, H, W, C), as float32 (N, C, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
