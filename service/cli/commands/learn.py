"""`misfit learn FOLDER --out BUNDLE`: a folder of photographs becomes a bundle."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES
from service.cli.commands import training_process
from service.errors import MisfitError, readable
from service.learning import learn as learning

# Files that could not be read are named up to this number.
NAMED = 5
INTERRUPTED = 130


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the bundle to write.")
@click.option(
    "--backbone",
    type=click.Path(path_type=Path),
    help="An ONNX graph: images uint8 (N, H, W, 3) to features (N, C, h, w); or the name of a model of timm, whose "
    "weights are downloaded. Default: EfficientNet-Lite0, shipped.",
)
@click.option("--axes", type=click.IntRange(1, 256), default=learning.AXES, show_default=True, help="Content latents.")
@click.option(
    "--decoder", is_flag=True, help="Also train a decoder, so that the model draws pictures. Needs PyTorch and minutes."
)
def learn(folder: Path, out: Path, backbone: Path | None, axes: int, decoder: bool) -> None:
    """Learn the photographs of FOLDER and the folders within it, and write a bundle to serve.

    Interrupted, the same command goes on where it stopped.
    """
    if decoder and (missing := training_process.list_missing(training_process.DECODER_NEEDS)):
        raise click.UsageError(f'--decoder needs {", ".join(missing)}: pip install "misfit[train]"')
    path = backbone or BACKBONES / DEFAULT_BACKBONE / FEATURES
    is_name = not path.is_file() and path.name == str(path) and path.suffix.lower() != ".onnx"
    if is_name and not (missing := training_process.list_missing(training_process.TIMM_NEEDS)):
        path = training_process.export_backbone(str(path), out)
    elif is_name:
        raise click.BadParameter(
            f"{path} is no file; for timm's model of that name {', '.join(missing)} must be installed: "
            'pip install "misfit[timm,train]"',
            param_hint="--backbone",
        )
    elif not path.is_file():
        raise click.BadParameter(f"{path} is no file; it takes an ONNX graph.", param_hint="--backbone")
    bar: Any = None

    def start(total: int) -> None:
        nonlocal bar
        bar = click.progressbar(length=total, label=f"reading {total:,} files", show_pos=True, file=sys.stderr)
        bar.render_progress()

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        learned = learning.learn(
            folder, out, backbone=path, axes=axes, started=start, progress=lambda done: bar.update(done)
        )
    except MisfitError as error:
        _finish(bar)
        click.echo(f"error: {error.message} {error.hint}".rstrip(), err=True)
        sys.exit(1)
    except OSError as error:
        _finish(bar)
        click.echo(f"error: {readable(str(error))}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        _finish(bar)
        click.echo("interrupted: the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
    _finish(bar)
    for file, reason in learned.unreadable[:NAMED]:
        click.echo(f"left out {readable(str(file))}: {reason}", err=True)
    if len(learned.unreadable) > NAMED:
        click.echo(f"left out {len(learned.unreadable) - NAMED} more files", err=True)
    for warning in learned.warnings:
        click.echo(f"warning: {warning}", err=True)
    directory = readable(str(learned.bundle.directory))
    click.echo(f"learned {learned.photographs:,} photographs into {directory}")
    if is_name:
        shutil.rmtree(path.parent, ignore_errors=True)
    if decoder:
        training_process.train_decoder(learned.bundle.directory, folder)
    click.echo(f"what its axes mean: {directory}/axes.png")
    click.echo(f"find what does not belong: misfit score FOLDER --bundle {shlex.quote(directory)}")
    click.echo(f"serve it: misfit serve {shlex.quote(directory)}")


def _finish(bar: Any) -> None:
    if bar is not None:
        bar.render_finish()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
