"""The commands of `python -m train`: each loads its input, computes, writes files, and prints a result.

Imports of torch and matplotlib are inside the functions, so that `--help` stays fast.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

from train.config.overrides import override, resize, shorten
from train.config.presets import PRESETS
from train.data.dataset import Dataset

RUNS = Path("runs")
RENDERED = {"shapes3d": Path("data/3dshapes.h5"), "dsprites": Path("data/dsprites.npz")}
REFERENCE_FRAMES = {name: Path(f"tests/data/{name}_reference") for name in RENDERED}


def list_presets(options: argparse.Namespace) -> None:
    """Print every preset with its length and description."""
    for name, make in PRESETS.items():
        preset = make()
        print(f"{name:28} {preset.total_steps:>7,} steps of {preset.training_batch:>3}   {preset.description}")


def run(options: argparse.Namespace) -> None:
    """Train a preset, then evaluate the run and draw its figures, unless it stops before its end."""
    from train.data import registry
    from train.reports.results import read_alignment_report
    from train.training import loop

    preset = PRESETS[options.preset]()
    if preset.image_shape is not None:
        preset = resize(preset, options.size or preset.image_shape[0], options.channels or preset.image_shape[2])
    elif options.size or options.channels:
        raise ValueError(f"--size and --channels are for the preset folder: the images of {preset.name} have theirs")
    for setting in options.set:
        preset = override(preset, setting)
    if options.steps is not None:
        preset = shorten(preset, options.steps)
    directory = options.out or RUNS / preset.name
    dataset = registry.load(preset, options.data)
    loop.run(
        preset,
        dataset,
        directory,
        seed=options.seed,
        precision=options.precision,
        until=options.until,
        resume=options.resume,
    )
    last = preset.last_step(read_alignment_report(directory).get("aligned"))
    if options.until is not None and options.until < last:
        print(f"{directory} is at step {options.until} of {last}; --resume goes on")
        return
    _measure(directory, dataset, "test")
    _draw(directory, dataset)
    print(f"next: python -m export {directory} --out service/bundles/NAME")


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate a run and print its metrics."""
    result = _measure(options.run, _dataset_of(options), options.split)
    print(json.dumps(result["metrics"], indent=2))


def figures(options: argparse.Namespace) -> None:
    """Draw the figures of an evaluated run."""
    _draw(options.run, _dataset_of(options))


def results(options: argparse.Namespace) -> None:
    """Keep the numbers and figures of a finished run."""
    from train.reports.results import keep

    print(keep(options.run, options.out))


def seeds(options: argparse.Namespace) -> None:
    """Compare runs of one preset over several seeds."""
    from train.reports.seeds import keep

    print(keep(options.runs, options.out))


def page(options: argparse.Namespace) -> None:
    """Write the page of all kept results."""
    from train.reports.experiments import page as text

    target = options.results / "README.md"
    target.write_text(text(options.results))
    print(target)


def render(options: argparse.Namespace) -> None:
    """Render a data set."""
    from train.data.dsprites import dataset as dsprites
    from train.data.shapes3d import dataset as shapes3d

    path = options.out or RENDERED[options.dataset]
    path.parent.mkdir(parents=True, exist_ok=True)
    {"shapes3d": shapes3d.render, "dsprites": dsprites.render}[options.dataset](path)


def fidelity(options: argparse.Namespace) -> None:
    """Compare a rendered data set with real frames. Raises ValueError where dSprites differs too much."""
    from train.data.dsprites import fidelity as dsprites_fidelity
    from train.data.shapes3d import fidelity as shapes3d_fidelity

    directory = options.frames or REFERENCE_FRAMES[options.dataset]
    if options.dataset == "shapes3d":
        shapes = shapes3d_fidelity.fidelity(directory)
        print(shapes)
        if options.out:
            shapes3d_fidelity.save_comparison(shapes, options.out)
        return
    sprites = dsprites_fidelity.fidelity(directory)
    print(sprites)
    if options.out:
        dsprites_fidelity.save_comparison(sprites, options.out)
    if not sprites.faithful:
        raise ValueError(
            f"the rendering is not faithful: {dsprites_fidelity.EXACT_SHARE:.0%} of the frames should be exact, and "
            f"none more than {dsprites_fidelity.WORST_PIXELS} pixels wrong"
        )


def sample(options: argparse.Namespace) -> None:
    """Write the sample batch of the README and the tests."""
    from train.data.sample_batch import write_sample_batch

    write_sample_batch(options.out)


def _measure(directory: Path, dataset: Dataset, split: Literal["test", "validation"]) -> dict[str, Any]:
    from train.evaluation.diagnosis import diagnose
    from train.evaluation.evaluate import evaluate as measure

    result = measure(directory, dataset, split)
    for remark in diagnose(result):
        print(f"note: {remark}", file=sys.stderr)
    return result


def _draw(directory: Path, dataset: Dataset) -> None:
    from train.reports.figures import draw

    for path in draw(directory, dataset):
        print(path)


def _dataset_of(options: argparse.Namespace) -> Dataset:
    from train.config.experiment import from_record
    from train.data import registry
    from train.training.checkpoint import load_config

    return registry.load(from_record(load_config(options.run)["preset"]), options.data)


def distill(options: argparse.Namespace) -> None:
    """Train a bundle's encoder on treated images toward its own latents of the clean ones."""
    import math

    import numpy as np

    from service.bundle import store
    from train.data.dataset import split
    from train.data.shapes3d import dataset as shapes3d
    from train.training.distillation import Distillation, distill

    bundle = store.load(options.bundle)
    if bundle.manifest.data.get("name") != "shapes3d":
        raise ValueError(f"{options.bundle} was trained on {bundle.manifest.data.get('name')}; 3D Shapes is expected")
    recipe = Distillation(**{name: getattr(options, name) for name in ("steps", "images") if getattr(options, name)})
    everything = math.prod(shapes3d.FACTOR_SIZES)
    rows = np.sort(split(everything).train[: recipe.images])
    dataset = shapes3d.load(options.data, rows) if options.data.exists() else shapes3d.rendered(rows)
    data = {"name": dataset.name, "source": dataset.source, "images": everything}
    distill(bundle, dataset.images, data, options.out, recipe, seed=options.seed, resume=options.resume)
    print(f"next: python -m train evaluate {options.out} && python -m export {options.out} --out service/bundles/NAME")
