"""The README's examples, as tests and `make example` run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from serving import ROOT, Served

README = ROOT / "README.md"


def example(name: str) -> str:
    """The code block under the comment that gives its name."""
    match = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README.read_text(), re.DOTALL)
    assert match, f"the README has no example {name}"
    return match[1]


def run(command: list[str], directory: Path) -> str:
    """Run in a directory that sees the repository's tests/data, with this environment's Python first; its output."""
    if not (directory / "tests").exists():
        (directory / "tests").symlink_to(ROOT / "tests")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    finished = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def run_shell(name: str, directory: Path, served: Served) -> str:
    """Run the shell example `name` against `served`; its output."""
    script = example(name).replace("localhost:3000", f"127.0.0.1:{served.port}")
    return run(["bash", "-euc", script], directory)
