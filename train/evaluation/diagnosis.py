"""A diagnosis of an evaluation in words: dead latents and blank reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLANK_SHARE = 0.1  # explained share below which reconstructions count as blank
POOR_SHARE = 0.5


def explained_share(metrics: Mapping[str, Any]) -> float:
    """Return how far the reconstruction's nll lies between the mean image's (0) and an exact one's (1)."""
    span = metrics["mean_image_nll"] - metrics["perfect_nll"]
    return float((metrics["mean_image_nll"] - metrics["reconstruction_nll"]) / span) if span > 0 else 0.0


def diagnose(evaluation: Mapping[str, Any]) -> list[str]:
    """Return sentences about dead latents and blank reconstructions. `evaluation` is evaluation.json."""
    metrics = evaluation["metrics"]
    latents, live = len(evaluation["latent_kl"]), metrics["live_latents"]
    share = explained_share(metrics)
    sentences = []
    if live == 0:
        sentences.append(
            f"all {latents} latents are dead: the KL cost more than the latents were worth, the encoder gives every "
            "image the same latents (posterior collapse) and the decoder draws one average image"
        )
    elif live < latents:
        sentences.append(
            f"{latents - live} of {latents} latents are dead: the objective found no use for more than "
            f"{live}, which carry {sum(evaluation['latent_kl']):.1f} nats in all"
        )
    if share < BLANK_SHARE:
        sentences.append(
            f"reconstructions explain {share:.0%} of what the images' mean does not: they are blank or nearly so"
        )
    elif share < POOR_SHARE:
        sentences.append(
            f"reconstructions explain only {share:.0%} of what the images' mean does not: much detail is missing"
        )
    return sentences
