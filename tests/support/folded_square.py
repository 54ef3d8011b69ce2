"""Draw squares whose size latent changes its sense with two colours, so that the answer of the alignment is known."""

from __future__ import annotations

import torch

SIDE = 16
SIZE, BACKGROUND, FOREGROUND = range(3)
LIVE = [SIZE, BACKGROUND, FOREGROUND]


def sense(latents):
    return torch.where(latents[:, FOREGROUND] > latents[:, BACKGROUND], 1.0, -1.0)


def draw(latents, *, folded=True):
    """Images (N, 1, 16, 16): a square on a ground; its half side is 4.5 plus the size latent, times its sense."""
    half = 4.5 + latents[:, SIZE] * (sense(latents) if folded else 1)
    away = (torch.arange(SIDE) - (SIDE - 1) / 2).abs()
    distance = torch.maximum(away[:, None], away[None, :])
    inside = torch.sigmoid(2 * (half[:, None, None] - distance))
    ground, square = (torch.sigmoid(latents[:, dim])[:, None, None] for dim in (BACKGROUND, FOREGROUND))
    return (ground + (square - ground) * inside)[:, None]


def random_latents():
    torch.manual_seed(0)
    drawn = torch.randn(4_000, 3)
    drawn[:, SIZE] *= 1.2
    return drawn
