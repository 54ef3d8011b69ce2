"""The command that programs share which add one graph to a bundle: `python -m export.int8 BUNDLE` and alike."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from service.bundle.store import Bundle
from service.errors import MisfitError


class GraphRefused(Exception):
    """What was made does not do what it is for, so it must not be written."""


def add_to_bundle(
    program: str, description: str, add: Callable[[Path], Bundle], added: str, arguments: Sequence[str] | None
) -> int:
    """Add a graph to the bundle that the arguments name. Return the exit code: 0, or 1 for an error that the message
    explains.

    added  what the graph is called in the message, with its article
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory of a bundle with a decoder")
    options = parser.parse_args(arguments)
    try:
        written = add(options.bundle)
    except (MisfitError, GraphRefused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"bundle {written.manifest.bundle_id[:12]} has {added}: {options.bundle}")
    return 0
