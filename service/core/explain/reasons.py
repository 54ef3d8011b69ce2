"""Reasons in plain words: which latents are off, by how much, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from service.core.detect.context import Context
from service.core.latent import CONTENT, Latent
from service.core.types import BoolArray, Float64Array, Source

# A sentence names up to NAMED latents. Of several, none stands out where the largest deviation is below OUTSTANDING.
NAMED, OUTSTANDING = 3, 2.0
# Nearest images that a sentence names.
NEAREST_NAMED = 2
SOURCES: dict[Source, str] = {
    "batch": "this batch",
    "reference": "the reference",
    "population": "the model's population",
}


def sentences(
    repaired: BoolArray,
    deviations: Float64Array,
    flagged: BoolArray,
    latents: Sequence[Latent],
    context: Context,
    nearest: Mapping[int, Sequence[str]] | None = None,
    by_error: BoolArray | None = None,
) -> list[str]:
    """Return each image's reason, from its minimal set (n, L), its deviations (`repair_z`, (n, L)) and its flag
    (n,). Where latents are measured properties, what is off is said in their words.

    nearest   by row, the ids of the images that are most like it, where they are to be named
    by_error  (n,) of which images the content is unlike the others in ways that no latent tells
    """
    if any(latent.unit is not None for latent in latents):
        unlike = np.zeros(len(flagged), dtype=bool) if by_error is None else by_error
        rows = zip(repaired, deviations, flagged.tolist(), unlike.tolist(), strict=True)
        return [
            describe(
                _measured(selected, z, latents),
                _content(selected, latents, is_unlike=is_unlike),
                flag,
                SOURCES[context.source],
                (nearest or {}).get(row, ()),
            )
            for row, (selected, z, flag, is_unlike) in enumerate(rows)
        ]
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


def describe(
    measured: dict[str, float],
    content: list[str] | None,
    flagged: bool,
    context: str,
    nearest: Sequence[str] = (),
) -> str:
    """Return the reason of one photograph.

    `measured` maps properties to their sd above (or, negative, below) the context, furthest first. `content` is None
    unless what it shows is unlike the context; then it holds the content latents that have names of the owner's.
    `nearest` are the ids of the images that are most like it.
    """
    if not flagged:
        return f"fits {context}"
    parts = []
    if content is not None:
        parts = [f"its content is unlike {context}" + (f" ({_listed(content)})" if content else "")]
        if nearest:
            parts[0] += f": nearest {'is' if len(nearest) == 1 else 'are'} {_listed(nearest)}"
    parts += [
        f"{name} is {_number(abs(z))} sd {'above' if z > 0 else 'below'} {context}"
        for name, z in [*measured.items()][:NAMED]
        if abs(z) >= OUTSTANDING
    ]
    return "; ".join(parts) or f"nothing stands out by itself, but together it is unusual for {context}" + (
        f": nearest {'is' if len(nearest) == 1 else 'are'} {_listed(nearest)}" if nearest else ""
    )


def _measured(selected: BoolArray, z: Float64Array, latents: Sequence[Latent]) -> dict[str, float]:
    """Return the selected properties' deviations with sign, furthest first."""
    dims = [k for k in np.argsort(-np.abs(z), kind="stable") if selected[k] and latents[k].unit is not None]
    return {latents[k].name: float(z[k]) for k in dims}


def _content(selected: BoolArray, latents: Sequence[Latent], *, is_unlike: bool) -> list[str] | None:
    """Return the names that the owner gave to the selected content latents, or None where none is selected and the
    content is not unlike the others otherwise.
    """
    content = [latent for chosen, latent in zip(selected, latents, strict=True) if chosen and latent.factor == CONTENT]
    return [latent.name for latent in content if latent.is_named] if content or is_unlike else None


def _listed(words: Sequence[str]) -> str:
    """Return words as a list in prose: ["a", "b", "c"] as "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _number(deviation: float) -> str:
    return f"{deviation:.1f}" if deviation < 10 else f"{deviation:.0f}"
