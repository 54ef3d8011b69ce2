"""The provenance of a result: the command, and the commit of the code that ran."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command() -> str:
    """Return the running command.

    Absolute paths are shortened to their names, since they mean nothing on another machine.
    """
    arguments = (Path(argument).name if Path(argument).is_absolute() else argument for argument in sys.argv[1:])
    program = Path(sys.argv[0]).resolve()
    is_script = program.is_relative_to(ROOT / "tests")
    return " ".join([f"python {program.relative_to(ROOT)}" if is_script else "python -m train", *arguments])


def commit() -> str:
    """Return the commit of this code, with "+" where the work tree differs from it; "unknown" outside git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
