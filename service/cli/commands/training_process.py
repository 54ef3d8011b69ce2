"""What `misfit learn` leaves to processes with PyTorch: nothing of the service imports torch."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from service.bundle.backbone_file import FEATURES
from service.errors import readable

# Packages that training a decoder needs, and what exporting a backbone of timm needs. Serving needs none of them.
DECODER_NEEDS = ("torch", "onnx", "onnxscript", "tqdm", "export")
TIMM_NEEDS = ("timm", *DECODER_NEEDS)


def list_missing(packages: Sequence[str]) -> list[str]:
    """Return those packages that are not installed."""
    return [name for name in packages if find_spec(name) is None]


def export_backbone(name: str, out: Path) -> Path:
    """Export timm's model `name` to a hidden directory beside the bundle `out`, and return the graph's path.

    Exits where the export fails: it has said why.
    """
    path = out.parent / f".{out.name}.backbone-{name}" / FEATURES
    command = [sys.executable, "-m", "export.timm_backbone", name, "--out", str(path)]
    if not path.is_file() and subprocess.run(command, check=False).returncode:
        sys.exit(1)
    return path


def train_decoder(bundle: Path, folder: Path) -> None:
    """Train a decoder on the photographs of `folder` and add it to `bundle`. Exits where that fails.

    SIGTERM is passed on, and Ctrl-C reaches all processes of a terminal: the training keeps a checkpoint.
    """
    process = subprocess.Popen([sys.executable, "-m", "export.decoder", str(bundle), str(folder)])
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
    }
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        click.echo(f"{readable(str(bundle))} is a whole bundle, but has no decoder yet", err=True)
        sys.exit(code if code > 0 else 1)
