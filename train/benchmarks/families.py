"""Does the default lead elsewhere too? Contexts that have nothing to do with the constants it was built on.

    tabular   one class of a labelled data set that scikit-learn ships, and a few of another or of all others. The
              population is the whole set ("in all data"), or has the context's own share of outliers ("as wide as the
              context"): a person's own folder
    sprites   rendered dSprites of which one or two factors are fixed, encoded by a bundle; outliers differ in one
    far       a context as wide as the population, and a few images far outside

Every method sees the same latents, in population units.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from sklearn import datasets
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName
from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks import calibration
from train.data.dsprites import dataset as dsprites

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

ESTIMATORS: tuple[EstimatorName, ...] = ("ensemble", "density_ratio", "mixture", "robust")
BASELINES = ("knn", "isolation_forest", "lof")
NEIGHBOURS = {"knn": 5, "lof": 20}
TABULAR = ("iris", "wine", "breast_cancer", "digits")
WIDE, NARROW, SPRITES, FAR = "tabular, as wide as the context", "tabular, in all data", "sprites", "far"
# Latents of a tabular set: its principal components, at most so many, and at least so many images for each.
MOST_COMPONENTS, IMAGES_A_COMPONENT, TABULAR_VARIANCE = 12, 4, 0.03
SPRITE_COUNT, SPRITE_SEED = 40_000, 7
# Levels of a sprite's factors that count as one: shape, scale, orientation, and the two positions.
SPRITE_BINS = np.array([1, 1, 5, 4, 4])
SHARES = (0.02, 0.07, 0.2)


@dataclass(frozen=True)
class Cell:
    """A family, a data set within it, and how many images and outliers a context has."""

    family: str
    source: str
    size: int
    outliers: int


class Labelled(NamedTuple):
    """Latents (n, 2, L), which are outliers (n,), and the population."""

    latents: FloatArray
    is_outlier: BoolArray
    population: Population


class Measured(NamedTuple):
    """Each method's AUROC in one context, and whether the default's answer calls itself reliable."""

    auroc: dict[str, float]
    is_reliable: bool


class Sprites(NamedTuple):
    """Latents (N, 2, L) of sprites, their factors (N, 5) in bins, and the bundle's population."""

    latents: FloatArray
    bins: IntArray
    population: Population


def list_cells() -> list[Cell]:
    """Return all cells. A tabular context is no larger than most of its set's classes allow."""
    sizes = {"iris": (40,), "wine": (40,), "breast_cancer": (50, 150), "digits": (50, 150)}
    return [
        *(
            Cell(family, name, size, max(round(share * size), 1))
            for family in (WIDE, NARROW)
            for name in TABULAR
            for size in sizes[name]
            for share in SHARES
        ),
        *(
            Cell(family, "", size, max(round(share * size), 1))
            for family in (SPRITES, FAR)
            for size in (50, 350)
            for share in SHARES
        ),
    ]


def encode_sprites(networks: OnnxNetworks, population: Population) -> Sprites:
    """Render random sprites and encode them."""
    random = np.random.default_rng(SPRITE_SEED)
    factors = np.stack([random.integers(0, size, SPRITE_COUNT) for size in dsprites.FACTOR_SIZES], axis=1)
    parts = [
        networks.encode(dsprites.frames(part)[..., None] * np.uint8(dsprites.WHITE))
        for part in np.array_split(factors, 20)
    ]
    return Sprites(np.concatenate(parts).astype(np.float64), factors // SPRITE_BINS, population)


def draw(cell: Cell, seed: int, index: int, sprites: Sprites) -> Labelled:
    """Draw the context number `index` of a cell, in random order."""
    place = list_cells().index(cell)
    random = np.random.default_rng([seed, place, index])
    if cell.family == SPRITES:
        drawn = _draw_sprites(cell, random, sprites)
    elif cell.family == FAR:
        kind = calibration.Cell("population", cell.size, cell.outliers, "several")
        drawn = Labelled(*calibration.draw(kind, seed + place, index), calibration.population())
    else:
        drawn = _draw_tabular(cell, random)
    order = random.permutation(len(drawn.latents))
    return Labelled(drawn.latents[order], drawn.is_outlier[order], drawn.population)


def _draw_sprites(cell: Cell, random: np.random.Generator, sprites: Sprites) -> Labelled:
    while True:
        fixed = random.choice(sprites.bins.shape[1], random.integers(1, 3), replace=False)
        example = sprites.bins[random.integers(len(sprites.bins))]
        different = (sprites.bins[:, fixed] != example[fixed]).sum(axis=1)
        inliers, outliers = np.flatnonzero(different == 0), np.flatnonzero(different == 1)
        if len(inliers) >= cell.size:
            break
    return _of_rows(sprites.latents, inliers, outliers, cell, random, sprites.population)


def _draw_tabular(cell: Cell, random: np.random.Generator) -> Labelled:
    values, labels = _tabular(cell.source)
    classes, counts = np.unique(labels, return_counts=True)
    normal = random.choice(classes[counts >= cell.size - cell.outliers])
    inliers, others = np.flatnonzero(labels == normal), np.flatnonzero(labels != normal)
    population = np.arange(len(labels))
    if cell.family == WIDE:
        few = round(len(inliers) * cell.outliers / (cell.size - cell.outliers))
        population = np.concatenate([inliers, random.permutation(others)[:few]])
    if random.random() < 0.5:
        one = random.choice([name for name, count in zip(classes, counts, strict=True) if count and name != normal])
        others = np.flatnonzero(labels == one)
    mean = values[population].mean(axis=0)
    _, singular, axes = np.linalg.svd(values[population] - mean, full_matrices=False)
    kept = min(MOST_COMPONENTS, int((singular > 1e-9).sum()), len(population) // IMAGES_A_COMPONENT)
    spread = singular[:kept] / np.sqrt(len(population))
    latents = _with_logvar((values - mean) @ axes[:kept].T / spread)
    return _of_rows(
        latents, inliers, others, cell, random, Population.from_latents(latents[random.permutation(population)])
    )


@cache
def _tabular(name: str) -> tuple[FloatArray, IntArray]:
    """Load a labelled set: its values (N, D), standardised, and its classes (N,)."""
    loaded = getattr(datasets, f"load_{name}")()
    values = loaded.data.astype(np.float64)
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9), loaded.target


def _of_rows(
    latents: FloatArray,
    inliers: IntArray,
    outliers: IntArray,
    cell: Cell,
    random: np.random.Generator,
    population: Population,
) -> Labelled:
    inlying = random.permutation(inliers)[: cell.size - cell.outliers]
    outlying = random.permutation(outliers)[: cell.outliers]
    rows = np.concatenate([inlying, outlying])
    return Labelled(latents[rows], np.arange(len(rows)) >= len(inlying), population)


def _with_logvar(points: FloatArray) -> FloatArray:
    return np.stack([points, np.full_like(points, np.log(TABULAR_VARIANCE))], axis=1)


def measure(context: Labelled) -> Measured:
    """Return what every method makes of one context."""
    latents, truth, population = context
    points = PopulationUnits.of(population).points(latents)
    nearest, _ = KDTree(points).query(points, NEIGHBOURS["knn"] + 1)  # the nearest is the point itself
    neighbours = LocalOutlierFactor(min(NEIGHBOURS["lof"], len(points) - 1)).fit(points)
    scored = {name: score(latents, population, estimator=name) for name in ESTIMATORS}
    scores: dict[str, FloatArray] = {
        **{name: each.outlier_score for name, each in scored.items()},
        "knn": nearest[:, 1:].mean(axis=1),
        "isolation_forest": -IsolationForest(random_state=0).fit(points).score_samples(points),
        "lof": -neighbours.negative_outlier_factor_,
    }
    areas = {name: float(roc_auc_score(truth, values)) for name, values in scores.items()}
    return Measured(areas, scored[DEFAULT_ESTIMATOR].context.reliability == "high")


def run(sprites: Sprites, contexts: int, seed: int, processes: int | None = None) -> list[dict[str, Any]]:
    """Measure `contexts` contexts of every cell; return one entry for each family: every method's mean AUROC."""
    tasks = [(cell, seed, index) for cell in list_cells() for index in range(contexts)]
    with ProcessPoolExecutor(
        processes or joblib.cpu_count(), get_context("spawn"), initializer=_start_worker, initargs=(sprites,)
    ) as pool:
        measured = list(tqdm(pool.map(_measure_task, tasks, chunksize=8), "families", len(tasks)))
    families = dict.fromkeys(cell.family for cell, _, _ in tasks)
    return [
        _entry(family, [each for (cell, _, _), each in zip(tasks, measured, strict=True) if cell.family == family])
        for family in families
    ]


def _entry(family: str, measured: Sequence[Measured]) -> dict[str, Any]:
    reliable = [each for each in measured if each.is_reliable]
    return {
        "family": family,
        "contexts": len(measured),
        "auroc": _mean_areas(measured),
        "reliable": len(reliable) / len(measured),
        "auroc_reliable": _mean_areas(reliable) if reliable else None,
    }


def _mean_areas(measured: Sequence[Measured]) -> dict[str, float]:
    return {name: float(np.mean([each.auroc[name] for each in measured])) for name in (*ESTIMATORS, *BASELINES)}


_sprites: Sprites | None = None  # of this process


def _start_worker(sprites: Sprites) -> None:
    global _sprites
    _sprites = sprites
    threadpool_limits(1)


def _measure_task(task: tuple[Cell, int, int]) -> Measured:
    assert _sprites is not None
    return measure(draw(*task, _sprites))
