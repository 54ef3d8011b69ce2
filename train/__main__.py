"""The command line of training: python -m train COMMAND; `python -m train --help` lists the commands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from service.core.types import DEFAULT_ESTIMATOR, EstimatorName
from train import commands
from train.benchmarks import commands as benchmark_commands
from train.commands import RENDERED, RUNS
from train.config.presets import PRESETS
from train.reports import experiments

RESULTS = Path("train/results")
DATA = RENDERED["shapes3d"]
SAMPLE_BATCH = Path("tests/data/shapes3d_batch.zip")
BENCHMARK, CALIBRATION = RUNS / "benchmark", RUNS / "calibration"
SEEDS = RESULTS / "shapes3d_beta_tcvae" / experiments.SEEDS
SPRITES = Path("service/bundles/dsprites")
MNIST = Path("data/mnist")
DIGITS = RUNS / "mnist_contexts"
DISTILLED = RUNS / "shapes3d_distilled"
NUISANCES = RUNS / "nuisances"
PHOTOGRAPHS = RUNS / "photographs"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 for an error that the message explains."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and measure misfit's models.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, summary: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=function)
        return added

    command("list", commands.list_presets, "list the presets")

    run_parser = command("run", commands.run, "train a preset, measure it and draw its figures")
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

    distill_parser = command(
        "distill", commands.distill, "train a bundle's encoder on treated images toward its latents of the clean ones"
    )
    distill_parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    distill_parser.add_argument("--data", type=Path, default=DATA, help=f"3D Shapes (default: {DATA})")
    distill_parser.add_argument("--out", type=Path, default=DISTILLED, help=f"the run (default: {DISTILLED})")
    distill_parser.add_argument("--seed", type=int, default=0)
    distill_parser.add_argument("--steps", type=int, metavar="N", help="training batches (default: 8,000)")
    distill_parser.add_argument("--images", type=int, metavar="N", help="clean images (default: 150,000)")
    distill_parser.add_argument("--resume", action="store_true", help="continue the run that is there")

    evaluate_parser = command("evaluate", commands.evaluate, "measure a run on images it was not trained on")
    evaluate_parser.add_argument("--split", choices=["test", "validation"], default="test")
    figures_parser = command("figures", commands.figures, "draw the figures of an evaluated run")
    for added in (evaluate_parser, figures_parser):
        added.add_argument("run", type=Path, metavar="RUN")
    for added in (run_parser, evaluate_parser, figures_parser):
        added.add_argument(
            "--data", type=Path, help="the data set's file, or folder of MNIST or of images (default: in data/)"
        )

    results_parser = command("results", commands.results, "keep the figures and numbers of a finished run")
    results_parser.add_argument("run", type=Path, metavar="RUN")
    results_parser.add_argument("--out", type=Path, default=RESULTS, help=f"directory (default: {RESULTS})")

    seeds_parser = command("seeds", commands.seeds, "one recipe over several seeds: median and range")
    seeds_parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    seeds_parser.add_argument("--out", type=Path, default=SEEDS, help=f"directory (default: {SEEDS})")

    page_parser = command("page", commands.page, "write the page of all kept results")
    page_parser.add_argument("--results", type=Path, default=RESULTS, help=f"directory (default: {RESULTS})")

    render_parser = command("render", commands.render, "render a data set where it cannot be downloaded")
    fidelity_parser = command("fidelity", commands.fidelity, "compare a rendered data set with real frames")
    for added in (render_parser, fidelity_parser):
        added.add_argument("dataset", choices=RENDERED)
    render_parser.add_argument("--out", type=Path, help="file (default: in data/)")
    fidelity_parser.add_argument("--frames", type=Path, help="directory (default: in tests/data)")
    fidelity_parser.add_argument("--out", type=Path, metavar="PNG", help="also draw both side by side")

    sample_parser = command("sample", commands.sample, "write the sample batch of the README and the tests")
    sample_parser.add_argument("--out", type=Path, default=SAMPLE_BATCH)

    seed_parser = command(
        "seed-case", benchmark_commands.seed_case, "the seed's outlier case on a bundle, over many random draws"
    )
    seed_parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    seed_parser.add_argument("--data", type=Path, default=DATA, help=f"3D Shapes (default: {DATA})")
    seed_parser.add_argument("--out", type=Path, default=BENCHMARK, help=f"directory (default: {BENCHMARK})")
    seed_parser.add_argument("--draws", type=int, default=100)
    seed_parser.add_argument("--seed", type=int, default=0)

    benchmark_parser = command(
        "benchmark", benchmark_commands.benchmark, "every method on random labelled contexts, encoded by a bundle"
    )
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

    nuisances_parser = command(
        "nuisances",
        benchmark_commands.nuisances,
        "compressed, moved, darkened and noisy images: all of a batch, half of it, and one",
    )
    nuisances_parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    nuisances_parser.add_argument("--data", type=Path, default=DATA, help=f"3D Shapes (default: {DATA})")
    nuisances_parser.add_argument("--out", type=Path, default=NUISANCES, help=f"directory (default: {NUISANCES})")
    nuisances_parser.add_argument("--contexts", type=int, default=40, help="with outliers, and without (default: 40)")
    nuisances_parser.add_argument("--seed", type=int, default=1)
    nuisances_parser.add_argument("--split", choices=["test", "validation"], default="test")

    calibration_parser = command(
        "calibration",
        benchmark_commands.calibration,
        "whether probabilities, flags and ranks are right, on batches of many kinds",
    )
    calibration_parser.add_argument("--out", type=Path, default=CALIBRATION, help=f"directory (default: {CALIBRATION})")
    calibration_parser.add_argument("--batches", type=int, default=24, help="of every cell with outliers (default: 24)")
    calibration_parser.add_argument(
        "--contexts", type=int, default=24, help="of every cell of the other families (default: 24)"
    )
    calibration_parser.add_argument("--sprites", type=Path, default=SPRITES, help=f"bundle (default: {SPRITES})")
    calibration_parser.add_argument("--seed", type=int, default=1)
    calibration_parser.add_argument("--estimator", choices=get_args(EstimatorName), default=DEFAULT_ESTIMATOR)

    digits_parser = command(
        "digits", benchmark_commands.digits, "batches of one handwritten digit with some of another, on a bundle"
    )
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

    photographs_parser = command(
        "photographs", benchmark_commands.photographs, "learn half of labelled photographs, score contexts of the rest"
    )
    photographs_parser.add_argument(
        "collections", type=Path, nargs="+", metavar="COLLECTION", help="a folder with a folder for each class"
    )
    photographs_parser.add_argument("--out", type=Path, default=PHOTOGRAPHS, help=f"directory (default: {PHOTOGRAPHS})")
    photographs_parser.add_argument("--contexts", type=int, default=30, help="of every cell (default: 30)")
    photographs_parser.add_argument("--seed", type=int, default=1)
    photographs_parser.add_argument(
        "--arms", action="store_true", help="measure other latents instead: of a VAE, of both, of a VAE over features"
    )
    photographs_parser.add_argument(
        "--halves", type=int, default=0, metavar="N", help="measure flags on N random halves instead, from --seed on"
    )
    photographs_parser.add_argument(
        "--only-default", action="store_true", help="measure neither the other estimators nor the baselines (fast)"
    )
    photographs_parser.add_argument(
        "--vae-steps", type=int, default=0, metavar="N", help="of --arms: train the own-folder VAE in N steps (long)"
    )

    reach_parser = command("reach", benchmark_commands.reach, "measure how far normal photographs reach (calibration)")
    reach_parser.add_argument(
        "collections", type=Path, nargs="+", metavar="COLLECTION", help="a folder with a folder for each class"
    )
    reach_parser.add_argument("--out", type=Path, default=PHOTOGRAPHS, help=f"directory (default: {PHOTOGRAPHS})")
    reach_parser.add_argument("--halves", type=int, default=4, help="times that each is divided (default: 4)")
    reach_parser.add_argument("--contexts", type=int, default=20, help="of every size, for each half (default: 20)")
    reach_parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
