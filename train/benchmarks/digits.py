"""A benchmark on real digits: contexts of one digit with some images of another among them.

The digits are held-out images of MNIST, encoded by an exported bundle and scored as /score does, including its check
for out-of-distribution images. A cell is a number of images and a number of other digits among them. Every ordered pair
of digits is drawn equally often in every cell, so that easy and hard pairs have the same weight. A clean context holds
one digit only: every flag there is false. Some estimators also get a reference set of other images of the normal digit,
as a request may bring one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from service.core.detect import ood
from service.core.detect.scoring import Scores, score
from service.core.types import EstimatorName
from train.benchmarks.baselines import METHODS, SLOW, Material
from train.benchmarks.contexts import FloatArray, IntArray, LabelledContext, summarize
from train.data.mnist import DIGITS

# Numbers of the other digit by number of images: 5, 10, 20 and 35%.
OTHERS = {20: (1, 2, 4, 7), 50: (2, 5, 10, 18), 200: (10, 20, 40, 70)}
CLEAN_CONTEXTS = 10  # for every context of a pair, since there are nine times fewer digits than pairs
PAIRS = tuple(permutations(range(DIGITS), 2))  # the normal digit, the other one
REFERENCE = 100  # images in a reference set
# Beside the bundle's default, the estimators whose flags are counted, without and with a reference set.
FLAGGING: tuple[EstimatorName, ...] = ("density_ratio", "mixture", "robust")


@dataclass(frozen=True)
class ContextSpec:
    """The specification of one context. `index` distinguishes contexts that are equal in everything else."""

    size: int
    others: int
    normal: int
    other: int  # the same as `normal` where there is none
    index: int


class Drawn(NamedTuple):
    """A context and its reference set."""

    context: LabelledContext
    reference: IntArray  # (REFERENCE,) rows of the normal digit that are not in the context


class Flagged(NamedTuple):
    """Shares of the images that an estimator flags."""

    inliers: float  # share of the normal images that are flagged
    others: float  # share of the others that are flagged; nan where there is none


class Outcome(NamedTuple):
    """The results of one context by method. `with_reference` names an estimator that was given a reference set."""

    spec: ContextSpec
    auroc: dict[str, float]
    average_precision: dict[str, float]
    flagged: dict[str, Flagged]


def with_reference(estimator: str) -> str:
    """Return the name of `estimator` with a reference set."""
    return f"{estimator}, reference"


# Methods that are compared with the default, by pair of digits.
PAIRED = ("pixel_pca", "oracle")


def list_specs(contexts: int) -> list[ContextSpec]:
    """Return `contexts` specifications of every cell and pair, and CLEAN_CONTEXTS times as many of each digit alone."""
    clean = [
        ContextSpec(size, 0, digit, digit, index)
        for size in OTHERS
        for digit in range(DIGITS)
        for index in range(contexts * CLEAN_CONTEXTS)
    ]
    mixed = [
        ContextSpec(size, count, normal, other, index)
        for size, counts in OTHERS.items()
        for count in counts
        for normal, other in PAIRS
        for index in range(contexts)
    ]
    return [*clean, *mixed]


def draw(spec: ContextSpec, labels: IntArray, seed: int) -> Drawn:
    """Draw a context and its reference set without replacement from images with `labels` (N,).

    Raises ValueError where there are too few images of a digit.
    """
    rng = np.random.default_rng([seed, *asdict(spec).values()])
    pool = np.flatnonzero(labels == spec.normal)
    normal = rng.permutation(pool)[: spec.size - spec.others + REFERENCE]
    reference, inliers = normal[:REFERENCE], normal[REFERENCE:]
    others = rng.permutation(np.flatnonzero(labels == spec.other))[: spec.others]
    if len(inliers) + len(others) < spec.size:
        raise ValueError(
            f"{len(pool)} held-out images of a {spec.normal} are too few for batches of {spec.size} and a reference "
            f"set of {REFERENCE}: this needs all of MNIST"
        )
    rows, is_outlier = np.concatenate([inliers, others]), np.arange(spec.size) >= len(inliers)
    order = rng.permutation(spec.size)
    return Drawn(LabelledContext(rows[order], is_outlier[order], pool, ()), reference)


def score_as_served(
    material: Material, rows: IntArray, estimator: EstimatorName, reference: IntArray | None = None
) -> Scores:
    """Score the images in `rows` as /score does for one request, with the images in `reference` as its reference."""
    ood_ratio = None
    if (familiarity := material.population.familiarity) is not None:
        ratio = (material.reconstruction_error / familiarity.limit).astype(np.float64)
        limit = ood.contextual_limit(ratio[rows if reference is None else reference], familiarity)
        ood_ratio = ratio[rows] / limit
        if reference is not None:
            reference = reference[~ood.is_ood(ratio[reference] / limit)]
    return score(
        material.latents[rows],
        material.population,
        estimator=estimator,
        ood_ratio=ood_ratio,
        reference=None if reference is None else material.latents[reference],
    )


def measure(
    material: Material,
    labels: IntArray,
    spec: ContextSpec,
    seed: int,
    slow: bool = True,
    flagging: Sequence[EstimatorName] = FLAGGING,
) -> Outcome:
    """Apply every method to one context: those in SLOW only if `slow`.

    A context without outliers only gets the estimators in `flagging`.
    """
    context, reference = draw(spec, labels, seed)
    truth = context.is_outlier
    served: dict[str, Scores] = {name: score_as_served(material, context.rows, name) for name in flagging}
    served |= {with_reference(name): score_as_served(material, context.rows, name, reference) for name in flagging}
    scores: dict[str, FloatArray] = {name: each.outlier_score for name, each in served.items()}
    if truth.any():
        unscored = [name for name in METHODS if name not in scores and (slow or name not in SLOW)]
        scores |= {name: METHODS[name](material, context) for name in unscored}
    return Outcome(
        spec,
        {name: float(roc_auc_score(truth, values)) for name, values in scores.items() if truth.any()},
        {name: float(average_precision_score(truth, values)) for name, values in scores.items() if truth.any()},
        {name: Flagged(_mean(each.is_outlier[~truth]), _mean(each.is_outlier[truth])) for name, each in served.items()},
    )


def run(material: Material, labels: IntArray, contexts: int, seed: int, default: EstimatorName) -> list[Outcome]:
    """Measure all contexts. Methods in SLOW only get the first of each cell and pair.

    `labels` (N,) are those of `material`. `default` is the bundle's estimator. Its flags are counted as well as those
    of FLAGGING.
    """
    flagging = tuple(dict.fromkeys((*FLAGGING, default)))
    with threadpool_limits(1):
        return [
            measure(material, labels, spec, seed, spec.index == 0, flagging)
            for spec in tqdm(list_specs(contexts), "contexts")
        ]


def report(outcomes: Sequence[Outcome], default: EstimatorName) -> dict[str, Any]:
    """Return the content of digits.json: results by cell, by pair of digits, and of clean contexts by size and digit.

    `default` is the bundle's estimator, whose AUROC is reported by pair.
    """
    return {
        "default_estimator": default,
        "cells": [
            {"size": size, "others": count, **_cell([each for each in outcomes if _is_of(each, size, count)])}
            for size, counts in OTHERS.items()
            for count in counts
        ],
        "pairs": [
            [_pair(outcomes, normal, other, (default, *PAIRED)) for other in range(DIGITS)] for normal in range(DIGITS)
        ],
        "clean": [{"size": size, **_clean([each for each in outcomes if _is_of(each, size, 0)])} for size in OTHERS],
    }


def _is_of(outcome: Outcome, size: int, others: int) -> bool:
    return (outcome.spec.size, outcome.spec.others) == (size, others)


def _cell(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    methods = {}
    for name in dict.fromkeys((*METHODS, *outcomes[0].flagged)):
        seen = [each for each in outcomes if name in each.auroc]
        methods[name] = {
            "contexts": len(seen),
            "auroc": summarize([each.auroc[name] for each in seen]),
            "average_precision": _mean([each.average_precision[name] for each in seen]),
        }
    flagged = {
        name: {
            "found": _mean([each.flagged[name].others for each in outcomes]),
            "inliers": _mean([each.flagged[name].inliers for each in outcomes]),
        }
        for name in outcomes[0].flagged
    }
    return {"contexts": len(outcomes), "methods": methods, "flagged": flagged}


def _pair(outcomes: Sequence[Outcome], normal: int, other: int, methods: Sequence[str]) -> dict[str, float] | None:
    """Return the mean AUROC over all cells, or None where the two digits are equal."""
    if (normal, other) not in PAIRS:
        return None
    of_pair = [each for each in outcomes if each.spec.others and (each.spec.normal, each.spec.other) == (normal, other)]
    return {name: _mean([each.auroc[name] for each in of_pair]) for name in methods}


def _clean(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "contexts": len(outcomes),
        "flagged": {
            name: {
                "images": _mean([each.flagged[name].inliers for each in outcomes]),
                "batches": _mean([each.flagged[name].inliers > 0 for each in outcomes]),
                "by_digit": [
                    _mean([each.flagged[name].inliers for each in outcomes if each.spec.normal == digit])
                    for digit in range(DIGITS)
                ],
            }
            for name in outcomes[0].flagged
        },
    }


def _mean(values: Sequence[float] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
