"""Messages of the service in the words of the command line: a user of `misfit` sends nothing with curl."""

from __future__ import annotations

import re

# The end of one sentence, where the next one begins.
BETWEEN = re.compile(r"(?<=[.!?]) (?=[A-Z])")
ENDPOINT = re.compile(r"POST /(score|explain|edit|fit)\b")


def for_prompt(text: str) -> str:
    """Return a message without its sentences about curl, and with commands in place of endpoints."""
    sentences = [each for each in BETWEEN.split(text) if not each.startswith("With curl")]
    return ENDPOINT.sub(r"misfit \1", " ".join(sentences))
