"""Latents by name or index, as requests give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.core.latent import Latent
from service.errors import InvalidOption, UnknownLatent


def resolve(wanted: str | int, latents: Sequence[Latent]) -> int:
    """The index of the latent called `wanted` (in any case) or of that index (5 or "5"). Raises UnknownLatent."""
    text = str(wanted).strip()
    indices = {str(latent.index): latent.index for latent in latents}
    indices |= {latent.name.casefold(): latent.index for latent in latents}
    indices |= {latent.name: latent.index for latent in latents}  # last, so that the exact spelling wins
    for spelling in (text, text.casefold()):
        if spelling in indices:
            return indices[spelling]
    raise UnknownLatent(
        f"This model has no latent {text[:80]!r}; it has {', '.join(latent.name for latent in latents)}.",
        f"Name one of them, or give its index, 0 to {len(latents) - 1}.",
    )


def resolve_values(values: Mapping[str, float], latents: Sequence[Latent]) -> dict[int, float]:
    """`values` by latent index. Raises UnknownLatent, and InvalidOption where two keys mean the same latent."""
    resolved: dict[int, float] = {}
    for wanted, value in values.items():
        index = resolve(wanted, latents)
        if index in resolved:
            raise InvalidOption(f"The latent {latents[index].name!r} is given twice.", "Give each latent one value.")
        resolved[index] = value
    return resolved
