"""The benchmark of the check for out-of-distribution images, which the API calls foreign.

It measures how well the service detects them, and whether they change the scores of a context's other images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from service.core.detect import ood
from service.core.detect.scoring import score
from service.core.population import Familiarity
from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks.baselines import Material
from train.benchmarks.contexts import FloatArray, sample
from train.benchmarks.ood_images import HARD_KINDS, KINDS, foreign_images

Uint8Array = NDArray[np.uint8]

IMAGES_A_KIND = 500
CONTEXTS = 100
SIZE, OUTLIERS, FOREIGN = 350, 25, 35


def measure(material: Material, networks: OnnxNetworks, images: Uint8Array, seed: int) -> dict[str, Any] | None:
    """Return what the check gives for every kind of image, on held-out `images` (N, 64, 64, 3), those of `material`.

    The result is None where the bundle lacks the population's reconstruction errors.
    """
    familiarity = material.population.familiarity
    if familiarity is None:
        return None
    known = material.reconstruction_error / familiarity.limit
    kinds: dict[str, dict[str, Any]] = {}
    judged: list[tuple[FloatArray, FloatArray]] = []
    for number, kind in enumerate(KINDS | HARD_KINDS):
        made = foreign_images(kind, IMAGES_A_KIND, np.random.default_rng([seed, number]), images)
        checked = networks.encode_checked(made)
        ood_ratio = ood.check(checked.reconstruction_error, familiarity).ood_ratio
        kinds[kind] = {
            "judged": kind in KINDS,
            "auroc": _auroc(ood_ratio, known),
            "found": float(ood.is_ood(ood_ratio).mean()),
            "lowest": float(ood_ratio.min()),
            "median": float(np.median(ood_ratio)),
        }
        if kind in KINDS:
            judged.append((checked.latents, ood_ratio))
    strange = np.concatenate([latents for latents, _ in judged])
    ood_ratio = np.concatenate([values for _, values in judged])
    return {
        "images_a_kind": IMAGES_A_KIND,
        "margin": familiarity.margin,
        "auroc": _auroc(ood_ratio, known),
        "found": float(ood.is_ood(ood_ratio).mean()),
        "known_images": len(known),
        "known_images_flagged": float((known > 1).mean()),
        "known_images_highest": float(known.max()),
        "kinds": kinds,
        "contexts": _among_contexts(material, familiarity, known, strange, ood_ratio, seed),
    }


def _among_contexts(
    material: Material,
    familiarity: Familiarity,
    known: FloatArray,
    strange: FloatArray,
    ood_ratio: FloatArray,
    seed: int,
) -> dict[str, Any]:
    """Return the mean AUROC of the contextual outliers among the known images, and of the foreign images among all.

    alone      without foreign images
    checked    with FOREIGN of them, as the service scores them: by the limit of the context
    unchecked  with them, and `foreign` off

    Also return the share of the foreign images that are found in their contexts.
    """
    alone, checked, unchecked, foreign_auroc, found = [], [], [], [], []
    for index in range(CONTEXTS):
        rng = np.random.default_rng([seed, len(KINDS | HARD_KINDS), index])
        context = sample(material.factors, rng, size=SIZE, outliers=OUTLIERS, stratum="any_difference")
        foreign_rows = rng.choice(len(strange), FOREIGN, replace=False)
        latents = material.latents[context.rows]
        mixed = np.concatenate([latents, strange[foreign_rows]])
        looks = np.concatenate([known[context.rows], ood_ratio[foreign_rows]])
        truth, is_foreign = context.is_outlier, np.arange(SIZE + FOREIGN) >= SIZE
        looks = looks / ood.contextual_limit(looks, familiarity)
        found.append(ood.is_ood(looks[is_foreign]).mean())
        with_check = score(mixed, material.population, ood_ratio=looks).outlier_score
        without = score(mixed, material.population).outlier_score
        alone.append(roc_auc_score(truth, score(latents, material.population).outlier_score))
        checked.append(roc_auc_score(truth, with_check[:SIZE]))
        unchecked.append(roc_auc_score(truth, without[:SIZE]))
        foreign_auroc.append((roc_auc_score(is_foreign, with_check), roc_auc_score(is_foreign, without)))
    foreign_checked, foreign_unchecked = np.mean(foreign_auroc, axis=0).tolist()
    return {
        "contexts": CONTEXTS,
        "size": SIZE,
        "outliers": OUTLIERS,
        "foreign": FOREIGN,
        "outlier_auroc": {
            "alone": float(np.mean(alone)),
            "checked": float(np.mean(checked)),
            "unchecked": float(np.mean(unchecked)),
        },
        "foreign_auroc": {"checked": foreign_checked, "unchecked": foreign_unchecked},
        "foreign_found": float(np.mean(found)),
    }


def _auroc(ood_ratio: FloatArray, known: FloatArray) -> float:
    truth = np.r_[np.ones(len(ood_ratio)), np.zeros(len(known))]
    return float(roc_auc_score(truth, np.r_[ood_ratio, known]))
