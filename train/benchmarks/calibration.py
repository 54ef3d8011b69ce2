"""Do probabilities mean what they say, and are flags right? Simulated batches where every answer is known.

The population is a standard normal over LATENTS latents. Inliers are of a kind:

    rule         some latents are fixed, the others free
    gaussian     a Gaussian of .4 of the population's spread
    student_t    Student's t with three degrees of freedom: natural variation, with heavy tails
    two_clumps   two tight clumps of the same number
    two_kinds    the same on some latents, the others free
    binomial     a few levels on some latents, the outer ones rare
    population   as wide as the population itself
    laplace      tails between those of a Gaussian and of Student's t, on every latent by itself
    skewed       a long tail to one side of every latent (log-normal)
    three_clumps three tight clumps of the same number

Outliers are draws of the population ("several causes"; far outside it where the inliers are the population), or lie
close to one such draw ("one cause"), or are copies of it ("copies").

Clumps and kinds are of the same number, to the image. Those BY_CHANCE are not: each image is of either by a coin.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from service.core.detect.scoring import false_discovery_flags, score
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

KINDS = (
    *("rule", "gaussian", "student_t", "two_clumps", "two_kinds", "binomial", "population", "laplace"),
    *("skewed", "three_clumps"),
)
# Clean batches whose halves are not of the same number, their sizes, and how many times `batches` of each there are.
BY_CHANCE, SIZES_BY_CHANCE, REPEATS_BY_CHANCE = ("two_clumps_by_chance", "two_kinds_by_chance"), (20, 50), 60
CAUSES = ("several", "one", "copies")
SIZES = (20, 50, 350, 2000)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35)
LATENTS, POSTERIOR_VARIANCE, POPULATION_SIZE, POPULATION_SEED = 6, 0.02, 20_000, 99
# Clean batches of a kind and size for every batch with outliers of one share and cause.
CLEAN = 4
# Of a large size fewer batches say as much.
LARGE, LARGE_STEP = 2000, 4
FDR = 0.1
# Ranks separate outliers from inliers from this AUROC on: then flags can be right.
SEPARATED = 0.95


@dataclass(frozen=True)
class Cell:
    """A kind of inliers, a number of images and of outliers, and what causes those."""

    kind: str
    size: int
    outliers: int
    cause: str


class Batch(NamedTuple):
    """Latents (n, 2, L) and which are outliers (n,)."""

    latents: FloatArray
    is_outlier: BoolArray


class Outcome(NamedTuple):
    """What the service says of one batch."""

    cell: Cell
    is_outlier: BoolArray
    probability: FloatArray
    flagged: BoolArray
    discovered: BoolArray  # flagged at a false discovery rate of FDR
    separated: bool
    is_reliable: bool
    warns_of_kinds: bool


@cache
def population() -> Population:
    """Return the simulated population."""
    random = np.random.default_rng(POPULATION_SEED)
    return Population.from_latents(_with_logvar(random.standard_normal((POPULATION_SIZE, LATENTS))))


def list_cells() -> list[Cell]:
    """Return all cells, the clean ones first."""
    clean = [Cell(kind, size, 0, "none") for kind in KINDS for size in SIZES]
    dirty = [
        Cell(kind, size, max(round(share * size), 1), cause)
        for kind in KINDS
        for size in SIZES
        for share in SHARES
        for cause in CAUSES
    ]
    return [*clean, *dict.fromkeys(dirty)]


def draw(cell: Cell, seed: int, index: int) -> Batch:
    """Draw the batch number `index` of a cell, in random order."""
    numbers = ((*KINDS, *BY_CHANCE).index(cell.kind), cell.size, cell.outliers, ("none", *CAUSES).index(cell.cause))
    random = np.random.default_rng([seed, *numbers, index])
    inliers = _draw_inliers(cell.kind, cell.size - cell.outliers, random)
    points = np.vstack([inliers, _draw_outliers(cell, random)])
    order = random.permutation(cell.size)
    return Batch(_with_logvar(points[order]), (np.arange(cell.size) >= len(inliers))[order])


def _draw_inliers(kind: str, n: int, random: np.random.Generator) -> FloatArray:
    points = random.standard_normal((n, LATENTS))
    narrow = random.permutation(LATENTS)[: random.integers(1, 5)]
    few = (n, len(narrow))
    half = random.integers(0, 2, n) if kind in BY_CHANCE else np.arange(n) % 2
    if kind == "rule":
        points[:, narrow] = random.standard_normal(len(narrow)) + 0.03 * random.standard_normal(few)
    elif kind == "gaussian":
        points = 0.4 * points + 0.6 * random.standard_normal(LATENTS)
    elif kind == "student_t":
        points = 0.25 * points / np.sqrt(random.chisquare(3, (n, 1)) / 3) + 0.6 * random.standard_normal(LATENTS)
    elif kind.startswith("two_clumps"):
        points = random.standard_normal((2, LATENTS))[half] + 0.15 * points
    elif kind.startswith("two_kinds"):
        points[:, narrow] = random.standard_normal((2, len(narrow)))[half] + 0.1 * random.standard_normal(few)
    elif kind == "binomial":
        levels = 0.4 * (random.binomial(4, 0.5, few) - 2)
        points[:, narrow] = levels + 0.6 * random.standard_normal(len(narrow)) + 0.03 * random.standard_normal(few)
    elif kind == "laplace":
        points = random.laplace(0, 0.28, points.shape) + 0.6 * random.standard_normal(LATENTS)
    elif kind == "skewed":
        points = 0.3 * random.choice([-1, 1], LATENTS) * np.exp(0.7 * points) + 0.6 * random.standard_normal(LATENTS)
    elif kind == "three_clumps":
        points = random.standard_normal((3, LATENTS))[np.arange(n) % 3] + 0.15 * points
    return points


def _draw_outliers(cell: Cell, random: np.random.Generator) -> FloatArray:
    count = 1 if cell.cause != "several" else cell.outliers
    points = random.standard_normal((count, LATENTS))
    if cell.kind == "population":
        points *= random.uniform(4.5, 7, (count, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    if cell.cause == "one":
        return np.asarray(points + 0.1 * random.standard_normal((cell.outliers, LATENTS)))
    return np.repeat(points, cell.outliers, axis=0) if cell.cause == "copies" else points


def _with_logvar(points: FloatArray) -> FloatArray:
    return np.stack([points, np.full_like(points, np.log(POSTERIOR_VARIANCE))], axis=1)


def measure(cell: Cell, batch: Batch, estimator: EstimatorName = DEFAULT_ESTIMATOR) -> Outcome:
    """Score one batch, by `threshold` and by false discovery rate."""
    truth = batch.is_outlier
    scores = score(batch.latents, population(), estimator=estimator)
    discovered = false_discovery_flags(scores.outlier_probability, scores.rank, FDR, np.ones(len(truth), dtype=bool))
    separated = bool(truth.any()) and float(roc_auc_score(truth, scores.outlier_score)) >= SEPARATED
    reliable = scores.context.reliability == "high"
    kinds = any("kinds" in warning for warning in scores.context.warnings)
    return Outcome(cell, truth, scores.outlier_probability, scores.is_outlier, discovered, separated, reliable, kinds)


def run(
    batches: int, seed: int, estimator: EstimatorName = DEFAULT_ESTIMATOR, processes: int | None = None
) -> list[Outcome]:
    """Measure `batches` batches of every cell with outliers, and CLEAN times as many of every clean one."""
    tasks = [
        (cell, seed, index, estimator)
        for cell in list_cells()
        for index in range(
            max(batches * (1 if cell.outliers else CLEAN) // (LARGE_STEP if cell.size >= LARGE else 1), 1)
        )
    ]
    return _run(tasks, processes)


def run_by_chance(
    batches: int, seed: int, estimator: EstimatorName = DEFAULT_ESTIMATOR, processes: int | None = None
) -> list[Outcome]:
    """Measure REPEATS_BY_CHANCE times `batches` clean batches of two kinds whose numbers are chance."""
    tasks = [
        (Cell(kind, size, 0, "none"), seed, index, estimator)
        for kind in BY_CHANCE
        for size in SIZES_BY_CHANCE
        for index in range(REPEATS_BY_CHANCE * batches)
    ]
    return _run(tasks, processes)


def _run(tasks: list[tuple[Cell, int, int, EstimatorName]], processes: int | None) -> list[Outcome]:
    with ProcessPoolExecutor(
        processes or joblib.cpu_count(), get_context("spawn"), initializer=threadpool_limits, initargs=(1,)
    ) as pool:
        return list(tqdm(pool.map(_measure_task, tasks, chunksize=16), "batches", len(tasks)))


def _measure_task(task: tuple[Cell, int, int, EstimatorName]) -> Outcome:
    cell, seed, index, estimator = task
    return measure(cell, draw(cell, seed, index), estimator)


def settings() -> dict[str, Any]:
    """Return what the report was made with."""
    return {"latents": LATENTS, "posterior_variance": POSTERIOR_VARIANCE, "fdr": FDR, "cells": len(list_cells())}
