"""A diagnosis of an evaluation in words: dead latents and blank reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.bundle import quality


def explained_share(metrics: Mapping[str, Any]) -> float:
    """Return how far the reconstruction's nll lies between the mean image's (0) and an exact one's (1)."""
    share = quality.explained_share(metrics)
    assert share is not None, "an evaluation measures all three"
    return share


def diagnose(evaluation: Mapping[str, Any]) -> list[str]:
    """Return sentences about dead latents and blank reconstructions. `evaluation` is evaluation.json."""
    return quality.remarks(evaluation["metrics"], len(evaluation["latent_kl"]))
