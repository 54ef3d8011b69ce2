"""Reasons in plain words: which latents are off, by how much, and from what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.core.detect.context import Context
from service.core.latent import Latent
from service.core.types import BoolArray, Float64Array, Source

# A sentence names up to NAMED latents. Of several, none stands out where the largest deviation is below OUTSTANDING.
NAMED, OUTSTANDING = 3, 2.0
SOURCES: dict[Source, str] = {
    "batch": "this batch",
    "reference": "the reference",
    "population": "the model's population",
}


def sentences(
    repaired: BoolArray, deviations: Float64Array, flagged: BoolArray, latents: Sequence[Latent], context: Context
) -> list[str]:
    """Return each image's reason, from its minimal set (n, L), its deviations (`repair_z`, (n, L)) and its flag
    (n,).
    """
    names = [latent.name for latent in latents]
    live = sum(not latent.dead for latent in latents)
    reasons = []
    for selected, z, is_outlier in zip(repaired, np.abs(deviations), flagged, strict=True):
        dims = [k for k in np.argsort(-z, kind="stable") if selected[k]]
        off = {names[k]: float(z[k]) for k in dims}
        reasons.append(sentence(off, live - len(off), bool(is_outlier), SOURCES[context.source]))
    return reasons


def sentence(off: dict[str, float], others: int, flagged: bool, context: str) -> str:
    """Return one image's reason. `off` maps latents to their sd, furthest first; `others` counts the latents that
    fit.
    """
    if not flagged:
        return f"fits {context}"
    deviations = list(off.values())
    if not off or (len(off) > 1 and deviations[0] < OUTSTANDING):
        return f"no single dim stands out, but together they are unusual for {context}"
    if len(off) <= NAMED:
        verb = "is" if len(off) == 1 else "are"
        reason = f"{_listed([*off])} {verb} {_listed([_number(z) for z in deviations])} sd from {context}"
    else:
        furthest = _listed([f"{name} ({_number(z)} sd)" for name, z in list(off.items())[:NAMED]])
        reason = f"{len(off)} dims are off from {context}, most of all {furthest}"
    return reason + {0: "", 1: "; its other dim fits"}.get(others, "; its other dims fit")


def _listed(words: Sequence[str]) -> str:
    """Return words as a list in prose: ["a", "b", "c"] as "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _number(deviation: float) -> str:
    return f"{deviation:.1f}" if deviation < 10 else f"{deviation:.0f}"
