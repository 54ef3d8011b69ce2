"""The bounds of edits, traversals and samples."""

from __future__ import annotations

from service.errors import InvalidOption

# A shift by quantiles stops at this quantile, or at 1 minus it.
EXTREME = 1e-3
# Latents and spans are at most this large. The prior has standard deviation 1: a decoder draws nothing further out.
FURTHEST = 1e3
# Images in one answer.
MOST_IMAGES = 1000
# Larger values of |logvar| are cut off, so that every sample is finite.
LARGEST_LOGVAR = 50.0


def check_count(what: str, count: int, least: int, most: int) -> None:
    """Raise InvalidOption unless `count` is between `least` and `most`."""
    if not least <= count <= most:
        raise InvalidOption(f"{count} {what} asked for; expected {least} to {most}.")


def check_value(value: float) -> float:
    """Return `value`. Raises InvalidOption beyond +-FURTHEST."""
    if not abs(value) <= FURTHEST:  # nan fails as well
        raise InvalidOption(f"The value {value} came; expected a number between -{FURTHEST:g} and {FURTHEST:g}.")
    return value
