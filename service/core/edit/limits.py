"""The bounds of edits, traversals and samples."""

from __future__ import annotations

from service.errors import InvalidOption

# A shift by quantiles goes no further than to this one, or to 1 less it.
EXTREME = 1e-3

# The prior has standard deviation 1: nothing that a decoder can draw lies further out.
FURTHEST = 1e3

MOST_IMAGES = 1000  # that one answer may hold

# Beyond it exp(logvar) says nothing; within it every sample is finite.
LARGEST_LOGVAR = 50.0


def check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        raise InvalidOption(f"{count} {what} asked for; expected {least} to {most}.")


def check_value(value: float) -> float:
    if not abs(value) <= FURTHEST:  # nan fails as well
        raise InvalidOption(f"The value {value} came; expected a number between -{FURTHEST:g} and {FURTHEST:g}.")
    return value
