"""The commands of `python -m train` that measure what is shipped: on contexts, simulated batches and digits."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.bundle.store import Bundle
from train.data.dataset import Dataset
from train.provenance import command, commit

if TYPE_CHECKING:
    from service.inference.onnx_runtime import OnnxNetworks

ENCODED_AT_A_TIME = 4_096


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
    """Measure probabilities and flags on simulated batches, and ranks in other families of contexts.

    Write calibration.json, README.md and figures.
    """
    from train.benchmarks import calibration, calibration_summary, families
    from train.reports import calibration as calibration_report

    started = time.perf_counter()
    served, networks = _open(options.sprites)
    sprites = families.encode_sprites(networks, served.population)
    outcomes = calibration.run(options.batches, options.seed, options.estimator)
    entries = calibration_summary.report(outcomes)
    by_chance = calibration.run_by_chance(options.batches, options.seed, options.estimator)
    result = {
        "estimator": options.estimator,
        "batches": options.batches,
        "seed": options.seed,
        "command": command(),
        "commit": commit(),
        "by_share": calibration_summary.report_by_share(outcomes),
        "by_reliability": calibration_summary.report_by_reliability(outcomes),
        "by_chance": calibration_summary.report_by_chance(by_chance),
        "families": families.run(sprites, options.contexts, options.seed),
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


def photographs(options: argparse.Namespace) -> None:
    """Learn one half of labelled collections, score contexts of the other; write photographs.json and README.md."""
    from train.benchmarks import photographs
    from train.reports import photographs as photographs_report

    if options.arms:
        _photograph_arms(options)
        return
    if options.halves:
        _photograph_halves(options)
        return
    started = time.perf_counter()
    measured = [
        photographs.run(
            own,
            options.contexts,
            options.seed,
            others=[each for each in options.collections if each != own],
            only_default=options.only_default,
        )
        for own in options.collections
    ]
    result = {
        "seed": options.seed,
        "contexts": options.contexts,
        "command": command(),
        "commit": commit(),
        "collections": [collection for collection, _ in measured],
        "foreign": [entry for _, foreign in measured for entry in foreign],
        "seconds": time.perf_counter() - started,
    }
    _write(result, options.out / "photographs.json", photographs_report.page(result), options.out / "README.md")


def reach(options: argparse.Namespace) -> None:
    """Measure how far normal photographs reach; write reach.json and reach.md."""
    from train.benchmarks import reach

    result = {
        "seed": options.seed,
        "command": command(),
        "commit": commit(),
        **reach.run(options.collections, options.halves, options.contexts, options.seed),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "reach.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "reach.md").write_text(reach.page(result))
    print((options.out / "reach.md").read_text())


def nuisances(options: argparse.Namespace) -> None:
    """Measure what nuisances do to ranks and flags on a bundle; write nuisances.json, README.md and a figure."""
    from train.benchmarks import nuisances
    from train.data.dataset import split
    from train.data.shapes3d import dataset as shapes3d
    from train.reports import nuisances as nuisances_report

    started = time.perf_counter()
    served, networks = _open(options.bundle)
    factors = nuisances.all_factors(shapes3d.FACTOR_SIZES)
    held_out = np.isin(np.arange(len(factors)), getattr(split(len(factors)), options.split))
    contexts = nuisances.draw(factors, held_out, options.contexts, options.seed)
    rows = nuisances.rows_of(contexts)
    data = shapes3d.load(options.data, rows) if options.data.exists() else shapes3d.rendered(rows)
    result = {
        **_provenance(options, served, data),
        "contexts": options.contexts,
        "entries": nuisances.run(networks, served.population, data, nuisances.renumber(contexts, rows), options.seed),
        "seconds": time.perf_counter() - started,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "nuisances.json").write_text(json.dumps(result, indent=1) + "\n")
    nuisances_report.draw(result["entries"], options.out / "nuisances.png")
    (options.out / "README.md").write_text(nuisances_report.page(result))
    print((options.out / "README.md").read_text())


def _photograph_arms(options: argparse.Namespace) -> None:
    """Measure other latents on the same contexts; write arms.json and arms.md."""
    from train.benchmarks import photograph_arms
    from train.reports import photographs as photographs_report

    started = time.perf_counter()
    result = {
        "seed": options.seed,
        "command": command(),
        "commit": commit(),
        "collections": [
            photograph_arms.run(each, options.contexts, options.seed, options.vae_steps) for each in options.collections
        ],
        "seconds": time.perf_counter() - started,
    }
    _write(result, options.out / "arms.json", photographs_report.arms_page(result), options.out / "arms.md")


def _photograph_halves(options: argparse.Namespace) -> None:
    """Measure the default estimator on several halves; write halves.json and halves.md."""
    from train.benchmarks import photographs
    from train.reports import photographs as photographs_report

    started = time.perf_counter()
    result = {
        "seed": options.seed,
        "contexts": options.contexts,
        "command": command(),
        "commit": commit(),
        "size": photographs.COMPARED.size,
        "outliers": photographs.COMPARED.outliers,
        "collections": [
            photographs.run_halves(each, options.halves, options.contexts, options.seed) for each in options.collections
        ],
        "seconds": time.perf_counter() - started,
    }
    _write(result, options.out / "halves.json", photographs_report.halves_page(result), options.out / "halves.md")


def _write(result: dict[str, Any], data: Path, page: str, document: Path) -> None:
    """Write a result to the file `data`, and its page to `document`; print the page."""
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(result, indent=1) + "\n")
    document.write_text(page)
    print(page)


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
