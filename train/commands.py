"""The commands of `python -m train`: each loads its input, computes, writes files, and prints a result.

Imports of torch and matplotlib are inside the functions, so that `--help` stays fast.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from service.bundle.store import Bundle
from train.config.overrides import override, resize, shorten
from train.config.presets import PRESETS
from train.data.dataset import Dataset
from train.provenance import command, commit

if TYPE_CHECKING:
    from service.inference.onnx_runtime import OnnxNetworks

RUNS = Path("runs")
RENDERED = {"shapes3d": Path("data/3dshapes.h5"), "dsprites": Path("data/dsprites.npz")}
REFERENCE_FRAMES = {name: Path(f"tests/data/{name}_reference") for name in RENDERED}
ENCODED_AT_A_TIME = 4_096


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


def seed_case(options: argparse.Namespace) -> None:
    """Measure the seed's case on a bundle; write seed_case.json and its figures."""
    from tqdm import tqdm

    from train.benchmarks import contexts
    from train.data.shapes3d import dataset as shapes3d
    from train.reports.figures import draw_seed_case

    served, networks = _open(options.bundle)
    everything = np.arange(math.prod(shapes3d.FACTOR_SIZES))
    data = shapes3d.load(options.data) if options.data.exists() else shapes3d.rendered(everything)
    starts = tqdm(range(0, len(data.images), ENCODED_AT_A_TIME), "encoding")
    latents = np.concatenate([networks.encode(data.images[start : start + ENCODED_AT_A_TIME]) for start in starts])
    report = contexts.seed_case(latents, data.factors, served.population, draws=options.draws, seed=options.seed)
    text = json.dumps({"bundle_id": served.manifest.bundle_id, "commit": commit(), **report}, indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "seed_case.json").write_text(text + "\n")
    draw_seed_case(latents, data.factors, served.population, options.seed, served.manifest.model, options.out)
    print(text)


def benchmark(options: argparse.Namespace) -> None:
    """Run the outlier benchmark on a bundle; write benchmark.json and benchmark.md.

    Contexts are drawn from all combinations of factors but the other held-out part. Inliers that were held out come
    first: of three or four fixed factors they are too few.
    """
    from train.benchmarks import counterfactuals, ood, outliers
    from train.data.dataset import split
    from train.data.shapes3d import dataset as shapes3d
    from train.reports import tables

    started = time.perf_counter()
    served, networks = _open(options.bundle)
    parts = split(math.prod(shapes3d.FACTOR_SIZES))
    held_out = np.sort(getattr(parts, options.split))
    rows = np.sort(np.concatenate([parts.train, held_out]))
    data = shapes3d.load(options.data, rows) if options.data.exists() else shapes3d.rendered(rows)
    is_held_out = np.isin(rows, held_out)
    material = outliers.prepare(served, networks, data)._replace(held_out=is_held_out)
    outcomes = outliers.run(material, options.contexts, options.seed)
    known, images = outliers.select(material, is_held_out), data.images[is_held_out]
    result = {
        **_provenance(options, served, data),
        "cells": outliers.report(outcomes),
        "by_fixed": outliers.report_by_fixed(outcomes),
        "counterfactuals": counterfactuals.measure(known, networks, options.seed),
        "foreign": ood.measure(known, networks, images, options.seed),
        "seconds": time.perf_counter() - started,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmark.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "benchmark.md").write_text(tables.markdown(result))
    print((options.out / "benchmark.md").read_text())


def calibration(options: argparse.Namespace) -> None:
    """Measure probabilities and flags on simulated batches; write calibration.json, README.md and figures."""
    from train.benchmarks import calibration
    from train.reports import calibration as calibration_report

    started = time.perf_counter()
    entries = calibration.report(calibration.run(options.batches, options.seed, options.estimator))
    result = {
        "estimator": options.estimator,
        "batches": options.batches,
        "seed": options.seed,
        "command": command(),
        "commit": commit(),
        "seconds": time.perf_counter() - started,
        "entries": entries,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "calibration.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "README.md").write_text(calibration_report.page(result))
    calibration_report.draw_reliability(entries, options.out / "reliability.png")
    calibration_report.draw_found(entries, options.out / "found.png")
    print((options.out / "README.md").read_text())


def digits(options: argparse.Namespace) -> None:
    """Run the benchmark on digits on a bundle; write digits.json, README.md and figures."""
    from dataclasses import replace

    from train.benchmarks import digits, outliers
    from train.data import mnist
    from train.data.dataset import split
    from train.reports import digits as digits_report

    started = time.perf_counter()
    served, networks = _open(options.bundle)
    everything = mnist.load(options.data)
    rows = np.sort(getattr(split(len(everything.images)), options.split))
    assert everything.labels is not None, "MNIST has labels"
    labels = everything.labels[rows]
    data = replace(everything, images=everything.images[rows], factors=everything.factors[rows], labels=labels)
    material = outliers.prepare(served, networks, data)
    default = served.manifest.default_estimator
    result = {
        **_provenance(options, served, data),
        **digits.report(digits.run(material, labels, options.contexts, options.seed, default), default),
        "seconds": time.perf_counter() - started,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "digits.json").write_text(json.dumps(result, indent=1) + "\n")
    digits_report.draw_figures(material, data, result, options.seed, options.out)
    (options.out / "README.md").write_text(digits_report.markdown(result))
    print((options.out / "README.md").read_text())


def _open(directory: Path) -> tuple[Bundle, OnnxNetworks]:
    """Load the bundle at `directory` and open its networks."""
    from service.bundle import store
    from service.inference.onnx_runtime import OnnxNetworks

    bundle = store.load(directory)
    return bundle, OnnxNetworks(bundle)


def _provenance(options: argparse.Namespace, served: Bundle, data: Dataset) -> dict[str, Any]:
    """Return how a result was measured: bundle, data, seed, command and commit."""
    return {
        "model": served.manifest.model,
        "bundle_id": served.manifest.bundle_id,
        "data": f"{data.name} ({data.source})",
        "split": options.split,
        "images": len(data.images),
        "seed": options.seed,
        "command": command(),
        "commit": commit(),
    }


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
