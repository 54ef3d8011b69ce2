"""Photographs: learn one half of a labelled collection as a user would, and score contexts of the other half.

A collection is a folder with a folder of photographs for each class. A context is one class with some photographs of
one other class. The baselines see the pooled features of the same backbone:

    knn               mean cosine distance to the nearest 5
    lof               Breunig et al. 2000
    isolation_forest  Liu, Ting & Zhou 2008
    ecod              Li et al. 2022: tails of every feature's distribution
    mcd               robust distance on 10 principal axes of the context
    mean              distance to the context's mean
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import MinCovDet
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from tqdm import tqdm

from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES
from service.bundle.manifest import ENCODER
from service.bundle.store import Bundle
from service.core.detect.scoring import Scores, false_discovery_flags, score
from service.core.types import EstimatorName
from service.inference.backbone import BackboneHead
from service.inference.features import FeatureNetwork
from service.inference.onnx_runtime import OnnxNetworks
from service.learning import folder, learn
from train.benchmarks.calibration import FDR
from train.benchmarks.calibration_summary import calibration_error

BACKBONE = BACKBONES / DEFAULT_BACKBONE / FEATURES

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SIZES, SHARES = (20, 50, 100, 350), (0.0, 0.01, 0.07, 0.2, 0.35)
ESTIMATORS: tuple[EstimatorName, ...] = ("density_ratio", "ensemble", "mixture", "robust")
NEIGHBOURS, MCD_AXES, TREES = 5, 10, 100


class Half(NamedTuple):
    """Photographs that were not learned: latents (n, 2, L), pooled features (n, C), classes (n,), errors (n,)."""

    latents: FloatArray
    features: FloatArray
    labels: NDArray[np.int64]
    errors: FloatArray


@dataclass(frozen=True)
class Cell:
    """How many photographs a context has, and how many of them are of the other class."""

    size: int
    outliers: int


# What several halves are compared by, beside their clean contexts.
COMPARED = Cell(100, 7)


def list_cells() -> list[Cell]:
    """Return all cells."""
    return [
        Cell(size, outliers)
        for size in SIZES
        for outliers in dict.fromkeys(max(round(share * size), 1) if share else 0 for share in SHARES)
    ]


def learn_half(
    collection: Path, directory: Path, seed: int, backbone: Path = BACKBONE
) -> tuple[Bundle, Half, list[Path]]:
    """Learn a random half of every class of `collection` into `directory`.

    Returns the bundle, and the other half with its files.
    """
    random = np.random.default_rng(seed)
    kept: list[Path] = []
    for class_folder in sorted(path for path in collection.iterdir() if path.is_dir()):
        files = folder.find(class_folder)
        order = random.permutation(len(files))
        (directory / "half" / class_folder.name).mkdir(parents=True)
        for row in order[: len(files) // 2]:
            (directory / "half" / class_folder.name / files[row].name).symlink_to(files[row].resolve())
        kept += [files[row] for row in order[len(files) // 2 :]]
    bundle = learn.learn(directory / "half", directory / "bundle", backbone=backbone).bundle
    return bundle, encode(bundle, kept), kept


def encode(bundle: Bundle, files: Sequence[Path]) -> Half:
    """Read and encode files; their class is the folder that they lie in."""
    assert bundle.projection is not None, "learned bundles have one"
    networks, head = OnnxNetworks(bundle), BackboneHead(bundle.projection)
    features = FeatureNetwork(bundle.directory / ENCODER)
    names = sorted({file.parent.name for file in files})
    parts: list[Half] = []
    for start in tqdm(range(0, len(files), 256), "encoding"):
        read = folder.read(files[start : start + 256], bundle.manifest.image)
        checked = networks.encode_checked(read.pixels)
        labels = np.array([names.index(files[start + position].parent.name) for position in read.read])
        errors = np.maximum(checked.reconstruction_error.astype(np.float64), head.property_errors(checked.latents))
        parts.append(Half(checked.latents.astype(np.float64), features.pooled(read.pixels), labels, errors))
    return Half(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def draw(half: Half, cell: Cell, random: np.random.Generator) -> tuple[NDArray[np.intp], BoolArray] | None:
    """Return the rows of a context in random order, and which are outliers; None where no class is large enough."""
    classes, counts = np.unique(half.labels, return_counts=True)
    large = classes[counts >= cell.size - cell.outliers]
    if not len(large) or counts.max() < cell.outliers:
        return None
    normal = random.choice(large)
    other = random.choice(classes[(classes != normal) & (counts >= cell.outliers)])
    rows = np.concatenate(
        [
            random.permutation(np.flatnonzero(half.labels == normal))[: cell.size - cell.outliers],
            random.permutation(np.flatnonzero(half.labels == other))[: cell.outliers],
        ]
    )
    order = random.permutation(cell.size)
    return rows[order], (np.arange(cell.size) >= cell.size - cell.outliers)[order]


def run(
    collection: Path,
    contexts: int,
    seed: int,
    backbone: Path = BACKBONE,
    others: Sequence[Path] = (),
    only_default: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Learn half of a collection and measure `contexts` contexts of every cell that its classes allow.

    Also return how well photographs of `others`, collections of their own, are told from those of the other half. With
    `only_default`, the other estimators and the baselines are not measured: they take most of the time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        bundle, half, _ = learn_half(collection, Path(scratch), seed, backbone)
        entries, probability, truth = [], [], []
        for place, cell in enumerate(tqdm(list_cells(), "cells")):
            random = np.random.default_rng([seed, place])
            drawn = [context for _ in range(contexts) if (context := draw(half, cell, random)) is not None]
            if not drawn:
                continue
            measured = [_measure(bundle, half, rows, is_outlier, only_default) for rows, is_outlier in drawn]
            probability += [each["probability"] for each in measured]
            truth += [is_outlier for _, is_outlier in drawn]
            entries.append({"size": cell.size, "outliers": cell.outliers, **_entry(measured)})
        familiarity = bundle.population.familiarity
        assert familiarity is not None, "learned bundles have one"
        result = {
            "collection": collection.name,
            "learned": bundle.population.size,
            "held_out": len(half.labels),
            "classes": len(np.unique(half.labels)),
            "calibration_error": calibration_error(np.concatenate(probability), np.concatenate(truth)),
            "own_called_foreign": float((half.errors > familiarity.margin * familiarity.high).mean()),
            "cells": entries,
        }
        return result, [_measure_foreign(bundle, half, collection, other) for other in others]


def run_halves(collection: Path, halves: int, contexts: int, seed: int) -> dict[str, Any]:
    """Measure the default estimator on several random halves of a collection, and return what each of them comes to.

    How well misfits are found depends on which photographs are learned, and which of them the contexts are drawn from.
    """
    measured = [run(collection, contexts, seed + number, only_default=True)[0] for number in range(halves)]
    return {"collection": collection.name, "halves": [_summarise(result) for result in measured]}


def _summarise(result: dict[str, Any]) -> dict[str, float]:
    cells = result["cells"]
    (compared,) = (cell for cell in cells if Cell(cell["size"], cell["outliers"]) == COMPARED)
    (auroc,) = compared["auroc"].values()
    clean = {f"clean_flagged_{cell['size']}": cell["inliers_flagged"] for cell in cells if not cell["outliers"]}
    return {
        "auroc": auroc["mean"],
        "found": compared["found"],
        "inliers_flagged": compared["inliers_flagged"],
        **clean,
        "false_discovery_proportion": max(cell["false_discovery_proportion"] for cell in cells),
        "calibration_error": result["calibration_error"],
    }


def _measure_foreign(bundle: Bundle, half: Half, own: Path, other: Path) -> dict[str, Any]:
    """Return how well photographs of `other` are told from those of `half`, the other half of what is learned."""
    familiarity = bundle.population.familiarity
    assert familiarity is not None, "learned bundles have one"
    errors = encode(bundle, folder.find(other)).errors
    truth = np.arange(len(errors) + len(half.errors)) < len(errors)
    return {
        "own": own.name,
        "other": other.name,
        "auroc": float(roc_auc_score(truth, np.concatenate([errors, half.errors]))),
        "flagged": float((errors > familiarity.margin * familiarity.high).mean()),
    }


def _measure(
    bundle: Bundle, half: Half, rows: NDArray[np.intp], is_outlier: BoolArray, only_default: bool
) -> dict[str, Any]:
    latents, features = half.latents[rows], half.features[rows]
    estimators = (bundle.manifest.default_estimator,) if only_default else ESTIMATORS
    scored: dict[str, Scores] = {name: score(latents, bundle.population, estimator=name) for name in estimators}
    default = scored[bundle.manifest.default_estimator]
    native = np.ones(len(rows), dtype=bool)
    discovered = false_discovery_flags(default.outlier_probability, default.rank, FDR, native)
    areas: dict[str, float] = {}
    if is_outlier.any():
        values = {name: each.outlier_score for name, each in scored.items()}
        if not only_default:
            values |= {name: baseline(features) for name, baseline in BASELINES.items()}
        areas = {name: float(roc_auc_score(is_outlier, each)) for name, each in values.items()}
    return {
        "auroc": areas,
        "probability": default.outlier_probability,
        "found": float(default.is_outlier[is_outlier].mean()) if is_outlier.any() else None,
        "false": float(default.is_outlier[~is_outlier].mean()),
        "false_discoveries": float((discovered & ~is_outlier).sum() / max(discovered.sum(), 1)),
        "reliable": default.context.reliability == "high",
    }


def _entry(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = measured[0]["auroc"]
    values = {name: np.array([each["auroc"][name] for each in measured]) for name in names}
    found = [each["found"] for each in measured if each["found"] is not None]
    return {
        "contexts": len(measured),
        "auroc": {
            name: {"mean": float(each.mean()), "worst_decile": float(np.quantile(each, 0.1))}
            for name, each in values.items()
        },
        "found": float(np.mean(found)) if found else None,
        "inliers_flagged": float(np.mean([each["false"] for each in measured])),
        "false_discovery_proportion": float(np.mean([each["false_discoveries"] for each in measured])),
        "called_reliable": float(np.mean([each["reliable"] for each in measured])),
    }


def _knn(features: FloatArray) -> FloatArray:
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(-np.sort(cosines, axis=1)[:, -NEIGHBOURS:].mean(axis=1))


def _lof(features: FloatArray) -> FloatArray:
    model = LocalOutlierFactor(min(20, len(features) - 1)).fit(features)
    return np.asarray(-model.negative_outlier_factor_)


def _isolation_forest(features: FloatArray) -> FloatArray:
    model = IsolationForest(n_estimators=TREES, random_state=0).fit(features)
    return np.asarray(-model.score_samples(features))


def _ecod(features: FloatArray) -> FloatArray:
    n = len(features)
    rank = features.argsort(axis=0).argsort(axis=0)
    left, right = -np.log((rank + 1) / n), -np.log((n - rank) / n)
    centred = features - features.mean(axis=0)
    is_left_skewed = np.power(centred, 3).mean(axis=0) < 0
    by_skewness = np.where(is_left_skewed, left, right)
    return np.asarray(np.max([left.sum(axis=1), right.sum(axis=1), by_skewness.sum(axis=1)], axis=0))


def _mcd(features: FloatArray) -> FloatArray:
    points = PCA(min(MCD_AXES, len(features) // 4), random_state=0).fit_transform(features)
    return np.asarray(MinCovDet(random_state=0).fit(points).mahalanobis(points))


def _mean(features: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(features - features.mean(axis=0), axis=1))


BASELINES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "knn": _knn,
    "lof": _lof,
    "isolation_forest": _isolation_forest,
    "ecod": _ecod,
    "mcd": _mcd,
    "mean": _mean,
}
