"""Command line: python -m train COMMAND; `python -m train --help` lists the commands."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from service.bundle import Bundle
from train.data.dataset import Dataset
from train.presets import PRESETS
from train.variations import override, shortened, sized

RUNS = Path("runs")
RESULTS = Path("train/results")
DATA = Path("data/3dshapes.h5")
RENDERED = {"shapes3d": DATA, "dsprites": Path("data/dsprites.npz")}
REFERENCE_FRAMES = {name: Path(f"tests/data/{name}_reference") for name in RENDERED}
SAMPLE_BATCH = Path("tests/data/shapes3d_batch.zip")
BENCHMARK = RUNS / "benchmark"
MNIST = Path("data/mnist")
DIGITS = RUNS / "mnist_contexts"
ENCODED_AT_A_TIME = 4_096


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def list_presets(options: argparse.Namespace) -> None:
    for name, make in PRESETS.items():
        preset = make()
        print(f"{name:28} {preset.total_steps:>7,} steps of {preset.training_batch:>3}   {preset.description}")


def run(options: argparse.Namespace) -> None:
    from train import loop  # torch takes seconds to import: only where it is needed
    from train.data import catalogue

    preset = PRESETS[options.preset]()
    if preset.image_shape is not None:
        preset = sized(preset, options.size or preset.image_shape[0], options.channels or preset.image_shape[2])
    elif options.size or options.channels:
        raise ValueError(f"--size and --channels are for the preset folder: the images of {preset.name} have theirs")
    for setting in options.set:
        preset = override(preset, setting)
    if options.steps is not None:
        preset = shortened(preset, options.steps)
    directory = options.out or RUNS / preset.name
    dataset = catalogue.load(preset, options.data)
    loop.run(
        preset,
        dataset,
        directory,
        seed=options.seed,
        precision=options.precision,
        until=options.until,
        resume=options.resume,
    )
    if options.until is not None and options.until < preset.total_steps:
        print(f"{directory} is at step {options.until} of {preset.total_steps}; --resume goes on")
        return
    _measure(directory, dataset, "test")
    _draw(directory, dataset)
    print(f"next: python -m export {directory} --out service/bundles/NAME")


def evaluate(options: argparse.Namespace) -> None:
    result = _measure(options.run, _dataset_of(options), options.split)
    print(json.dumps(result["metrics"], indent=2))


def figures(options: argparse.Namespace) -> None:
    _draw(options.run, _dataset_of(options))


def unfold(options: argparse.Namespace) -> None:
    from train.unfold import unfold as unfolded

    report = unfolded(options.run, _dataset_of(options), options.out, seeds=options.seeds, seed=options.seed)
    print(json.dumps(report, indent=2))
    latents = len(report["kept"])
    print(
        f"next: python -m train run {report['preset']} --seed {report['seed']} --set network.latent_dim={latents} "
        f"--out {options.out} --resume"
    )


def results(options: argparse.Namespace) -> None:
    from train.results import keep

    print(keep(options.run, options.out))


def page(options: argparse.Namespace) -> None:
    from train.page import page as text

    target = options.results / "README.md"
    target.write_text(text(options.results))
    print(target)


def render(options: argparse.Namespace) -> None:
    from train.data import dsprites, shapes3d

    path = options.out or RENDERED[options.dataset]
    path.parent.mkdir(parents=True, exist_ok=True)
    {"shapes3d": shapes3d.render, "dsprites": dsprites.render}[options.dataset](path)


def fidelity(options: argparse.Namespace) -> None:
    from train.data import dsprites_fidelity, shapes3d_fidelity

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
    from train.sample_batch import write_sample_batch

    write_sample_batch(options.out)


def seed_case(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from service import bundle, runtime
    from train import contexts
    from train.data import shapes3d
    from train.figures import draw_seed_case
    from train.loop import commit

    served = bundle.load(options.bundle)
    networks = runtime.Networks(served)
    data = shapes3d.load(options.data)
    starts = tqdm(range(0, len(data.images), ENCODED_AT_A_TIME), "encoding")
    latents = np.concatenate([networks.encode(data.images[start : start + ENCODED_AT_A_TIME]) for start in starts])
    report = contexts.seed_case(latents, data.factors, served.population, draws=options.draws, seed=options.seed)
    text = json.dumps({"bundle_id": served.manifest.bundle_id, "commit": commit(), **report}, indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "seed_case.json").write_text(text + "\n")
    draw_seed_case(latents, data.factors, served.population, options.seed, served.manifest.model, options.out)
    print(text)


def benchmark(options: argparse.Namespace) -> None:
    from service import bundle, runtime
    from train import benchmark, foreign_stratum, repairs, tables
    from train.data import shapes3d
    from train.data.dataset import split

    started = time.perf_counter()
    served = bundle.load(options.bundle)
    networks = runtime.Networks(served)
    parts = split(math.prod(shapes3d.FACTOR_SIZES))
    data = shapes3d.load(options.data, np.sort(getattr(parts, options.split)))
    material = benchmark.prepare(served, networks, data)
    cells = benchmark.report(benchmark.run(material, options.contexts, options.seed))
    result = {
        **_provenance(options, served, data),
        "cells": cells,
        "counterfactuals": repairs.measure(material, networks, options.seed),
        "foreign": foreign_stratum.measure(material, networks, data.images, options.seed),
        "seconds": time.perf_counter() - started,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmark.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "benchmark.md").write_text(tables.markdown(result))
    print((options.out / "benchmark.md").read_text())


def digits(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from service import bundle, runtime
    from train import benchmark, digits, digits_report
    from train.data import mnist
    from train.data.dataset import split

    started = time.perf_counter()
    served = bundle.load(options.bundle)
    everything = mnist.load(options.data)
    rows = np.sort(getattr(split(len(everything.images)), options.split))
    assert everything.labels is not None, "MNIST has labels"
    labels = everything.labels[rows]
    data = replace(everything, images=everything.images[rows], factors=everything.factors[rows], labels=labels)
    material = benchmark.prepare(served, runtime.Networks(served), data)
    result = {
        **_provenance(options, served, data),
        **digits.report(
            digits.run(material, labels, options.contexts, options.seed), served.manifest.default_estimator
        ),
        "seconds": time.perf_counter() - started,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "digits.json").write_text(json.dumps(result, indent=1) + "\n")
    digits_report.draw_figures(material, data, result, options.seed, options.out)
    (options.out / "README.md").write_text(digits_report.markdown(result))
    print((options.out / "README.md").read_text())


def _provenance(options: argparse.Namespace, served: Bundle, data: Dataset) -> dict[str, Any]:
    """What a measured result says of how it was measured."""
    from train.loop import commit

    return {
        "model": served.manifest.model,
        "bundle_id": served.manifest.bundle_id,
        "data": f"{data.name} ({data.source})",
        "split": options.split,
        "images": len(data.images),
        "seed": options.seed,
        "command": " ".join(["python -m train", *sys.argv[1:]]),
        "commit": commit(),
    }


def _measure(directory: Path, dataset: Dataset, split: Literal["test", "validation"]) -> dict[str, Any]:
    from train.diagnosis import remarks
    from train.evaluate import evaluate as measure

    result = measure(directory, dataset, split)
    for remark in remarks(result):
        print(f"note: {remark}", file=sys.stderr)
    return result


def _draw(directory: Path, dataset: Dataset) -> None:
    from train.figures import draw

    for path in draw(directory, dataset):
        print(path)


def _dataset_of(options: argparse.Namespace) -> Dataset:
    from train.data import catalogue
    from train.loop import load_config
    from train.presets import from_record

    return catalogue.load(from_record(load_config(options.run)["preset"]), options.data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and measure misfit's models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=function)
        return added

    command("list", list_presets, "list the presets")

    run_parser = command("run", run, "train a preset, measure it and draw its figures")
    run_parser.add_argument("preset", choices=PRESETS)
    run_parser.add_argument("--seed", type=int, default=0)
    run_parser.add_argument("--out", type=Path, help=f"the run's directory (default: {RUNS}/PRESET)")
    run_parser.add_argument("--resume", action="store_true", help="continue the run that is there")
    run_parser.add_argument("--until", type=int, metavar="STEP", help="stop at this step; --resume goes on")
    run_parser.add_argument(
        "--steps", type=int, metavar="N", help="the whole recipe in N steps, its schedules shortened"
    )
    run_parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    run_parser.add_argument("--size", type=int, help="of the preset folder: bring images to SIZE x SIZE (default: 64)")
    run_parser.add_argument("--channels", type=int, help="of the preset folder: 1 for grey, 3 for colour (default)")
    run_parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the preset"
    )

    evaluate_parser = command("evaluate", evaluate, "measure a run on images it was not trained on")
    evaluate_parser.add_argument("--split", choices=["test", "validation"], default="test")
    figures_parser = command("figures", figures, "draw the figures of an evaluated run")
    for added in (evaluate_parser, figures_parser):
        added.add_argument("run", type=Path, metavar="RUN")
    for added in (run_parser, evaluate_parser, figures_parser):
        added.add_argument(
            "--data", type=Path, help="the data set's file, or folder of MNIST or of images (default: in data/)"
        )

    unfold_parser = command("unfold", unfold, "give a latent whose sense changes with the context one sense everywhere")
    unfold_parser.add_argument("run", type=Path, metavar="RUN")
    unfold_parser.add_argument("--out", type=Path, required=True, help="directory of the new run")
    unfold_parser.add_argument("--data", type=Path, help="the data set's file (default: in data/)")
    unfold_parser.add_argument(
        "--seeds", type=int, default=40, help="of the new latents; the best is kept (default: 40)"
    )
    unfold_parser.add_argument("--seed", type=int, default=0)

    results_parser = command("results", results, "keep the figures and numbers of a finished run")
    results_parser.add_argument("run", type=Path, metavar="RUN")
    results_parser.add_argument("--out", type=Path, default=RESULTS, help=f"directory (default: {RESULTS})")

    page_parser = command("page", page, "write the page of all kept results")
    page_parser.add_argument("--results", type=Path, default=RESULTS, help=f"directory (default: {RESULTS})")

    render_parser = command("render", render, "render a data set where it cannot be downloaded")
    fidelity_parser = command("fidelity", fidelity, "compare a rendered data set with real frames")
    for added in (render_parser, fidelity_parser):
        added.add_argument("dataset", choices=RENDERED)
    render_parser.add_argument("--out", type=Path, help="file (default: in data/)")
    fidelity_parser.add_argument("--frames", type=Path, help="directory (default: in tests/data)")
    fidelity_parser.add_argument("--out", type=Path, metavar="PNG", help="also draw both side by side")

    sample_parser = command("sample", sample, "write the sample batch of the README and the tests")
    sample_parser.add_argument("--out", type=Path, default=SAMPLE_BATCH)

    seed_parser = command("seed-case", seed_case, "the seed's outlier case on a bundle, over many random draws")
    seed_parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    seed_parser.add_argument("--data", type=Path, default=DATA, help=f"3D Shapes (default: {DATA})")
    seed_parser.add_argument("--out", type=Path, default=BENCHMARK, help=f"directory (default: {BENCHMARK})")
    seed_parser.add_argument("--draws", type=int, default=100)
    seed_parser.add_argument("--seed", type=int, default=0)

    benchmark_parser = command("benchmark", benchmark, "every method on random labelled contexts, encoded by a bundle")
    benchmark_parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    benchmark_parser.add_argument("--data", type=Path, default=DATA, help=f"3D Shapes (default: {DATA})")
    benchmark_parser.add_argument("--out", type=Path, default=BENCHMARK, help=f"directory (default: {BENCHMARK})")
    benchmark_parser.add_argument(
        "--contexts", type=int, default=60, help="of every cell (default: 60, 1,020 a stratum)"
    )
    benchmark_parser.add_argument("--seed", type=int, default=1)
    benchmark_parser.add_argument(
        "--split", choices=["test", "validation"], default="test", help="develop on validation, report on test"
    )

    digits_parser = command("digits", digits, "batches of one handwritten digit with some of another, on a bundle")
    digits_parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    digits_parser.add_argument(
        "--data", type=Path, default=MNIST, help=f"folder of MNIST's idx files (default: {MNIST})"
    )
    digits_parser.add_argument("--out", type=Path, default=DIGITS, help=f"directory (default: {DIGITS})")
    digits_parser.add_argument(
        "--contexts", type=int, default=1, help="of every cell and pair of digits (default: 1, 1,080 in all)"
    )
    digits_parser.add_argument("--seed", type=int, default=1)
    digits_parser.add_argument("--split", choices=["test", "validation"], default="test")
    return parser


if __name__ == "__main__":
    sys.exit(main())
