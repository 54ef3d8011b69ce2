"""A benchmark of counterfactuals: does an edit repair the factor that differs, and nothing else?

Outliers that differ in one factor are scored. Those detected are projected by the service's smallest repair, decoded
and encoded again. A classifier of latents, trained on one half of the held-out images, reads their factors. The
classifier makes errors, so `kept` only counts images that it reads correctly before the repair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from service.core.detect.posterior import inside, mahalanobis
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from service.core.edit import latent_edits
from service.core.explain import minimal_sets
from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks.baselines import Material
from train.benchmarks.contexts import FloatArray, IntArray, LabelledContext
from train.benchmarks.outliers import SINGLE_STRATA, Cell, draw

CASES = ((50, 5), (350, 25))
CONTEXTS = 20
TREES = 50


class Repairs(NamedTuple):
    """The repaired images of one context's detected outliers."""

    rows: IntArray  # (m,)
    changed: IntArray  # (m,) the factor that differs
    target: IntArray  # (m, K) the factors that the repaired image should have
    latents: FloatArray  # (m, 2, L) of the repaired image, encoded again
    inside: NDArray[np.bool_]  # (m,) whether the repaired image is back inside the context


def measure(material: Material, networks: OnnxNetworks, seed: int) -> list[dict[str, Any]]:
    """Return one entry for each of SINGLE_STRATA: shares of the detected outliers, by their repaired images.

        inside             it is back inside the context
        restored           it has the context's value of the factor that differed
        kept               it keeps its values of all other factors, where the classifier read those correctly before
        restored_and_kept  both, for the same images

    `readable` is the share of unedited images of which the classifier reads every factor correctly.
    """
    units = PopulationUnits.of(material.population)
    points = units.points(material.latents)
    shuffled = np.random.default_rng(seed).permutation(len(points))
    taught, judged = np.array_split(shuffled, 2)
    # Each factor has its own forest: a common one hardly ever splits for a factor that is hard to read.
    forests = [
        ExtraTreesClassifier(TREES, max_features=None, random_state=0, n_jobs=-1).fit(points[taught], levels)
        for levels in material.factors[taught].T
    ]

    def read(points: FloatArray) -> IntArray:
        return np.stack([forest.predict(points) for forest in forests], axis=1)

    readable = (read(points[judged]) == material.factors[judged]).all(axis=1).mean()
    report = []
    for stratum in SINGLE_STRATA:
        cells = [(Cell(stratum, size, count), index) for size, count in CASES for index in range(CONTEXTS)]
        parts = [_repair(material, networks, draw(cell, material.factors, seed, index)) for cell, index in cells]
        repairs = Repairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        changed = np.arange(material.factors.shape[1]) == repairs.changed[:, None]
        before = read(points[repairs.rows]) == material.factors[repairs.rows]
        after = read(units.points(repairs.latents)) == repairs.target
        restored, unchanged = after[changed], (after | changed).all(axis=1)
        known = (before | changed).all(axis=1)
        report.append(
            {
                "stratum": stratum,
                "outliers": len(known),
                "inside": float(repairs.inside.mean()),
                "restored": float(restored.mean()),
                "kept": float(unchanged[known].mean()),
                "restored_and_kept": float((restored & unchanged)[known].mean()),
                "readable": float(readable),
            }
        )
    return report


def _repair(material: Material, networks: OnnxNetworks, context: LabelledContext) -> Repairs:
    population = material.population
    scores = score(material.latents[context.rows], population)
    rows = context.rows[context.is_outlier & scores.is_outlier]
    images, normal = material.latents[rows], scores.context
    repaired = minimal_sets.minimal_sets(images, normal, population)
    edited = latent_edits.counterfactual(
        images[:, 0].astype(np.float64), repaired, normal.location, normal.covariance, population.live_dims
    )
    again = _look(networks, edited) if len(rows) else images
    missed = np.flatnonzero(~inside(again, normal, population))
    if len(missed):
        # The service does the same: it draws once more what the decoder missed, and takes the nearer picture.
        second = _look(networks, latent_edits.compensated(edited[missed], again[missed, 0], repaired[missed]))
        nearer = mahalanobis(second, normal, population) < mahalanobis(again[missed], normal, population)
        again[missed[nearer]] = second[nearer]
    rule, fixed = material.factors[context.inlier_pool[0]], np.array(context.fixed)
    differs = material.factors[rows][:, fixed] != rule[fixed]
    changed = fixed[differs.argmax(axis=1)]
    target = material.factors[rows].copy()
    target[np.arange(len(rows)), changed] = rule[changed]
    return Repairs(rows, changed, target, again, inside(again, normal, population))


def _look(networks: OnnxNetworks, latents: FloatArray) -> FloatArray:
    """Return what the encoder sees in the pictures of latents (n, L)."""
    return networks.encode(networks.decode(latents.astype(np.float32)))
