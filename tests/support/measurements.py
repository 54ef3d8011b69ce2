"""What a benchmark measured, kept as JSON beside the commit and the command that measured it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def save(path: Path | None, results: Any) -> None:
    """Write `results` to `path`, if one is named."""
    if path is None:
        return
    program = Path(sys.argv[0]).resolve().relative_to(ROOT)
    kept = {"command": " ".join(["python", str(program), *sys.argv[1:]]), "commit": commit(), "results": results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")


def commit() -> str:
    """Return the commit of the checkout, with "+" where its tracked files differ from it."""
    describe = ("git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*")
    return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
