"""What a benchmark measured, kept as JSON beside the commit and the command that measured it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from train.provenance import commit

ROOT = Path(__file__).parents[2]


def save(path: Path | None, results: Any) -> None:
    """Write `results` to `path`, if one is named."""
    if path is None:
        return
    program = Path(sys.argv[0]).resolve().relative_to(ROOT)
    kept = {"command": " ".join(["python", str(program), *sys.argv[1:]]), "commit": commit(), "results": results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
