"""The contextual outlier benchmark: every method on random labelled contexts, and the service's default in detail.

The images are held out, encoded by the exported bundle and scored by the service's own functions. A cell is a stratum,
a number of images and a number of outliers among them. Every context has its own random generator, so the report does
not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple, cast

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from service.bundle.store import Bundle
from service.core.detect.scoring import Scores, false_discovery_flags, score
from service.core.explain import attribution
from service.core.types import DEFAULT_ESTIMATOR
from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks.baselines import FLAGGING, METHODS, SLOW, Material
from train.benchmarks.contexts import STRATA, IntArray, LabelledContext, Stratum, sample, summarize
from train.data.dataset import Dataset

# Numbers of outliers by number of images: 0, 1, 7, 20 and 35%, and the cells of the first comparison.
OUTLIERS = {20: (0, 1, 2, 4, 7), 50: (0, 1, 5, 10, 18), 350: (0, 4, 25, 70, 90, 122), 2000: (0, 20, 140, 400, 700)}
CLEAN = "clean"
# An outlier differs in exactly one of the fixed factors, so the factor that an explanation should name is known.
SINGLE_STRATA = ("single_factor", "adjacent_level", "shape_only")
# Methods in SLOW get one in so many contexts of a cell.
SLOW_STEP = 5
FDR = 0.1
# Ranks separate outliers from inliers from this AUROC on: then flags can be right.
SEPARATED = 0.95
PIXEL_COMPONENTS, PIXEL_IMAGES = 20, 2_000
IMAGES_AT_A_TIME = 2_048
TASKS_AT_A_TIME = 8


@dataclass(frozen=True)
class Cell:
    """A stratum, a number of images and a number of outliers."""

    stratum: str  # one of STRATA, or CLEAN where nothing differs
    size: int
    outliers: int


class Flags(NamedTuple):
    """Shares of the images that a method with log odds flags."""

    inliers: float  # share of the inliers that are flagged
    outliers: float  # share of the outliers that are flagged; nan without outliers
    false_discoveries: float  # share of inliers among what is flagged at a false discovery rate of FDR
    brier: float  # mean squared difference of probability and truth


class Outcome(NamedTuple):
    """The results of one context by method, and whether the default estimator's attribution names the right factor."""

    cell: Cell
    fixed_factors: int
    auroc: dict[str, float]
    average_precision: dict[str, float]
    flags: dict[str, Flags]
    named: float  # share of the flagged outliers whose differing factor tops the attributions; nan if unknown
    is_reliable: bool  # what the answer says of itself


def list_cells() -> list[Cell]:
    """Return all cells: the clean ones, then every stratum with every number of outliers."""
    clean = [Cell(CLEAN, size, 0) for size in OUTLIERS]
    dirty = [Cell(name, size, count) for name in STRATA for size in OUTLIERS for count in OUTLIERS[size] if count]
    return [*clean, *dirty]


def prepare(bundle: Bundle, networks: OnnxNetworks, dataset: Dataset) -> Material:
    """Encode, decode and project all images of `dataset`."""
    images, rng = dataset.images, np.random.default_rng(0)
    basis = PCA(min(PIXEL_COMPONENTS, len(images)), svd_solver="randomized", random_state=0)
    basis.fit(_flat(images[rng.permutation(len(images))[:PIXEL_IMAGES]]))
    latents, errors, components = [], [], []
    for start in tqdm(range(0, len(images), IMAGES_AT_A_TIME), "encoding"):
        part = images[start : start + IMAGES_AT_A_TIME]
        checked = networks.encode_checked(part)
        latents.append(checked.latents)
        errors.append(checked.reconstruction_error.astype(np.float64))
        components.append(basis.transform(_flat(part)))
    names = [latent.factor for latent in bundle.manifest.latents]
    return Material(
        np.concatenate(latents),
        dataset.factors,
        bundle.population,
        np.concatenate(errors),
        np.concatenate(components),
        np.array([dataset.factor_names.index(name) if name in dataset.factor_names else -1 for name in names]),
    )


def select(material: Material, rows: NDArray[np.bool_]) -> Material:
    """Return the images in `rows` (N,) alone."""
    return material._replace(
        latents=material.latents[rows],
        factors=material.factors[rows],
        reconstruction_error=material.reconstruction_error[rows],
        components=material.components[rows],
        held_out=None,
    )


def run(
    material: Material,
    contexts: int,
    seed: int = 0,
    selected: Sequence[Cell] | None = None,
    processes: int | None = None,
) -> list[Outcome]:
    """Measure `contexts` random contexts of each of the `selected` cells, by default of all."""
    tasks = [(cell, seed, index) for cell in selected or list_cells() for index in range(contexts)]
    # The largest contexts come last. Shuffled, they do not all go to one process.
    order = np.random.default_rng(0).permutation(len(tasks)).tolist()
    with ProcessPoolExecutor(
        processes or joblib.cpu_count(), get_context("spawn"), initializer=_start_worker, initargs=(material,)
    ) as pool:
        measured = pool.map(_measure_task, [tasks[place] for place in order], chunksize=TASKS_AT_A_TIME)
        outcomes = dict(zip(order, tqdm(measured, "contexts", len(tasks)), strict=True))
    return [outcomes[place] for place in range(len(tasks))]


def draw(
    cell: Cell, factors: IntArray, seed: int, index: int, held_out: NDArray[np.bool_] | None = None
) -> LabelledContext:
    """Draw the context number `index` of a cell."""
    name = [CLEAN, *STRATA].index(cell.stratum)
    rng = np.random.default_rng([seed, name, cell.size, cell.outliers, index])
    stratum = cast(Stratum, "any_difference" if cell.stratum == CLEAN else cell.stratum)
    return sample(factors, rng, size=cell.size, outliers=cell.outliers, stratum=stratum, held_out=held_out)


def measure(material: Material, cell: Cell, context: LabelledContext, slow: bool = True) -> Outcome:
    """Apply every method to one context; those in SLOW only if `slow`."""
    truth, images = context.is_outlier, material.latents[context.rows]
    scored = {name: score(images, material.population, estimator=name) for name in FLAGGING}
    auroc: dict[str, float] = {}
    precision: dict[str, float] = {}
    if truth.any():
        for name, method in METHODS.items():
            if slow or name not in SLOW:
                scores = scored[name].outlier_score if name in FLAGGING else method(material, context)
                auroc[name] = float(roc_auc_score(truth, scores))
                precision[name] = float(average_precision_score(truth, scores))
    shipped = scored[DEFAULT_ESTIMATOR]
    by_name = named(material, context, shipped) if cell.stratum in SINGLE_STRATA else float("nan")
    flags_of_method: dict[str, Flags] = {name: count_flags(scores, truth) for name, scores in scored.items()}
    is_reliable = shipped.context.reliability == "high"
    return Outcome(cell, len(context.fixed), auroc, precision, flags_of_method, by_name, is_reliable)


def count_flags(scores: Scores, truth: NDArray[np.bool_]) -> Flags:
    """Return the shares of images that are flagged, and the probabilities by bin."""
    everybody, probability = np.ones(len(truth), dtype=bool), scores.outlier_probability
    at_rate = false_discovery_flags(probability, scores.rank, FDR, everybody)
    return Flags(
        float(scores.is_outlier[~truth].mean()),
        float(scores.is_outlier[truth].mean()) if truth.any() else float("nan"),
        float((at_rate & ~truth).sum() / max(at_rate.sum(), 1)),
        float(np.square(probability - truth).mean()),
    )


def named(material: Material, context: LabelledContext, shipped: Scores) -> float:
    """Return the share of detected outliers whose top attributed latent is named after the factor that differs.

    The result is nan where no outlier was detected.
    """
    detected = np.flatnonzero(context.is_outlier & shipped.is_outlier)
    if not detected.size:
        return float("nan")
    latents = material.latents[context.rows[detected]]
    attributions = attribution.attribute(latents, shipped.context, material.population)
    top = attribution.order(attributions, shipped.context)[:, 0]
    rule = material.factors[context.inlier_pool[0], context.fixed]
    differs = material.factors[context.rows[detected]][:, context.fixed] != rule
    return float((material.latent_factors[top] == np.array(context.fixed)[differs.argmax(axis=1)]).mean())


def report(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one entry for every cell, in the order of the outcomes."""
    by_cell: dict[Cell, list[Outcome]] = {}
    for outcome in outcomes:
        by_cell.setdefault(outcome.cell, []).append(outcome)
    return [asdict(cell) | _entry(of_cell) for cell, of_cell in by_cell.items()]


def _entry(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    methods: dict[str, dict[str, Any]] = {}
    for name in METHODS:
        if areas := [outcome.auroc[name] for outcome in outcomes if name in outcome.auroc]:
            precision = [outcome.average_precision[name] for outcome in outcomes if name in outcome.auroc]
            methods[name] = {"contexts": len(areas), "auroc": summarize(areas), "average_precision": _mean(precision)}
    for name in FLAGGING:
        of_method = [outcome.flags[name] for outcome in outcomes]
        methods[name] = methods.get(name, {"contexts": len(outcomes)}) | {
            "inliers_flagged": _mean([flagged.inliers for flagged in of_method]),
            "found": _mean([flagged.outliers for flagged in of_method]),
            "found_where_separated": _mean(
                [outcome.flags[name].outliers for outcome in outcomes if outcome.auroc.get(name, 0) >= SEPARATED]
            ),
            "false_discovery_rate": _mean([flagged.false_discoveries for flagged in of_method]),
            "brier": _mean([flagged.brier for flagged in of_method]),
        }
        if "oracle" in methods:
            own, oracle = methods[name]["auroc"], methods["oracle"]["auroc"]
            methods[name]["share_of_oracle"] = {key: own[key] / oracle[key] for key in ("mean", "worst_decile")}
    return {
        "contexts": len(outcomes),
        "fixed_factors": _mean([outcome.fixed_factors for outcome in outcomes]),
        "attribution_top_1": _mean([outcome.named for outcome in outcomes]),
        "missed_silently": _mean(
            [
                float(outcome.flags[DEFAULT_ESTIMATOR].outliers < 0.5 and outcome.is_reliable)
                for outcome in outcomes
                if outcome.cell.outliers
            ]
        ),
        "methods": methods,
    }


def report_by_fixed(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return AUROC by stratum and number of fixed factors, of the estimators whose flags are counted."""
    dirty = [outcome for outcome in outcomes if outcome.cell.outliers]
    entries = []
    for stratum in dict.fromkeys(outcome.cell.stratum for outcome in dirty):
        for fixed in sorted({outcome.fixed_factors for outcome in dirty}):
            part = [each for each in dirty if (each.cell.stratum, each.fixed_factors) == (stratum, fixed)]
            if part:
                areas = {name: summarize([each.auroc[name] for each in part]) for name in FLAGGING}
                entries.append({"stratum": stratum, "fixed": fixed, "contexts": len(part), "auroc": areas})
    return entries


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean over the contexts with a value, or None where there is none."""
    known = np.array(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None


_material: Material | None = None  # of this process


def _start_worker(material: Material) -> None:
    global _material
    _material = material
    threadpool_limits(1)


def _measure_task(task: tuple[Cell, int, int]) -> Outcome:
    assert _material is not None
    cell, seed, index = task
    context = draw(cell, _material.factors, seed, index, _material.held_out)
    return measure(_material, cell, context, slow=index % SLOW_STEP == 0)


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert uint8 (N, H, W, C) to float32 (N, H * W * C) in [0, 1]."""
    return np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)
