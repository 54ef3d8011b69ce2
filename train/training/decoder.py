"""Train a picture decoder: from the latents of a learned folder's images to the images, with checkpoint and resume."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.models.latent_decoder import LatentDecoder
from train.objectives.ssim import structural_similarity
from train.training.allocator import keep_freed_memory
from train.training.loop import resolve_precision
from train.training.shards import open_shards

STEPS, BATCH = 2_000, 64
RATE, FINAL_RATE = 2e-3, 2e-5
# The loss is the mean absolute error and this many times what the structural similarity falls short of 1. The absolute
# error alone draws the median of all pictures that the latents allow, which is blurred.
STRUCTURE = 0.3
# Latents are drawn with this much noise, in standard deviations, so that the pictures change smoothly between them.
NOISE = 0.1
# Every so many images one is held out, and what the model card says is measured on those.
HELD_OUT = 10
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Trained:
    """The decoder, and how well it draws images that it was not trained on."""

    decoder: LatentDecoder
    metrics: dict[str, float]


def train_decoder(
    latents: NDArray[np.float32],
    images: NDArray[np.uint8],
    checkpoint: Path,
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trained | None:
    """Train on latents (n, L) of images (n, SIDE, SIDE, 3) from `checkpoint`, if there is one, to `steps` steps.

    `progress` is told the step. Where `should_stop`, the state is saved at once and the result is None.
    """
    held_out = np.arange(len(images)) % HELD_OUT == 0
    known = torch.from_numpy(latents)
    pictures = torch.from_numpy(images)
    rows = torch.from_numpy(np.flatnonzero(~held_out))
    keep_freed_memory()
    torch.manual_seed(seed)
    scale = known[rows].std(dim=0)
    decoder = LatentDecoder(known[rows].mean(dim=0), torch.where(scale > 0, scale, torch.ones_like(scale)))
    optimizer = torch.optim.Adam(decoder.parameters(), lr=RATE, fused=True)
    step = 0
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        step = state["step"]
    bf16 = resolve_precision("auto") == "bf16"
    with open_shards() as shards:
        while step < steps:
            for group in optimizer.param_groups:
                group["lr"] = FINAL_RATE + (RATE - FINAL_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
            chosen = rows[torch.randint(len(rows), (BATCH,))]
            noise = NOISE * torch.randn(BATCH, known.shape[1]) * decoder.scale
            aim = _scaled(pictures[chosen])
            (logits,) = shards.run(decoder, decoder, known[chosen] + noise, bf16=bf16)
            drawn = logits.sigmoid()
            loss = (drawn - aim).abs().mean() + STRUCTURE * (1 - structural_similarity(aim, drawn))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            progress(step)
            stopping = should_stop()
            if stopping or step % CHECKPOINT_EVERY == 0:
                _save(checkpoint, decoder, optimizer, step)
            if stopping and step < steps:
                return None
    decoder.eval()
    return Trained(decoder, _measure(decoder, known, pictures, held_out))


def _measure(
    decoder: LatentDecoder, latents: Tensor, pictures: Tensor, held_out: NDArray[np.bool_]
) -> dict[str, float]:
    """Return SSIM and mean absolute error, in grey levels, over the held-out images, and those of their mean image."""
    rows = torch.from_numpy(np.flatnonzero(held_out))
    typical = _scaled(pictures[~torch.from_numpy(held_out)]).mean(dim=0, keepdim=True)
    sums = np.zeros(4)
    with torch.inference_mode():
        for part in torch.split(rows, 256):
            aim, drawn = _scaled(pictures[part]), decoder(latents[part]).sigmoid()
            mean = typical.expand_as(aim)
            for place, each in ((0, drawn), (2, mean)):
                error = 255 * (each - aim).abs().mean()
                sums[place : place + 2] += len(part) * np.array([structural_similarity(aim, each), error])
    ssim, error, mean_ssim, mean_error = (sums / len(rows)).round(4).tolist()
    return {
        "held_out": len(rows),
        "ssim": ssim,
        "absolute_error_grey_levels": error,
        "mean_image_ssim": mean_ssim,
        "mean_image_absolute_error_grey_levels": mean_error,
    }


def _scaled(images: Tensor) -> Tensor:
    """Convert uint8 (N, H, W, 3) to (N, 3, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255


def _save(path: Path, decoder: LatentDecoder, optimizer: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_name(path.name + ".part")
    state = {
        "step": step,
        "decoder": decoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(state, partial)
    os.replace(partial, path)
