"""What an int8 encoder loses on contexts: flags and AUROC beside those of the float32 encoder.

Only 3D Shapes can be rendered here. The int8 encoders of other bundles are measured by their latents alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from service.bundle.manifest import Int8Loss
from service.core.detect.scoring import score
from service.core.population import Population
from train.benchmarks.contexts import LabelledContext, sample
from train.benchmarks.nuisances import all_factors
from train.data.shapes3d import dataset

CONTEXTS, SIZE, MISFITS = 60, 120, 9
SEED = 12
# By the name of a bundle's data: the images (n, H, W, C) of factors (n, K), and how many values each factor has.
RENDERED = {"shapes3d": (dataset.frames, dataset.FACTOR_SIZES)}

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def contexts(data: str, count: int) -> Iterator[tuple[LabelledContext, NDArray[np.uint8]]]:
    """Yield `count` contexts of rendered images with misfits one level off, and their images (SIZE, H, W, C)."""
    render, sizes = RENDERED[data]
    factors = all_factors(sizes)
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        context = sample(factors, rng, size=SIZE, outliers=MISFITS, stratum="adjacent_level")
        yield context, render(factors[context.rows])


def measure(data: str, population: Population, exact: Encode, rounded: Encode, count: int) -> Int8Loss:
    """Return what scores by a `rounded` encoder lose beside those by the `exact` one."""
    changed, areas = [], []
    for context, images in contexts(data, count):
        first, second = (score(encode(images), population) for encode in (exact, rounded))
        changed.append(first.is_outlier != second.is_outlier)
        areas.append([roc_auc_score(context.is_outlier, each.outlier_score) for each in (first, second)])
    # (2, contexts), rising
    ordered = np.sort(areas, axis=0).T
    worst = ordered[:, : max(count // 10, 1)].mean(axis=1)
    mean = ordered.mean(axis=1)
    return Int8Loss(
        contexts=count,
        flags_changed=float(np.mean(changed)),
        auroc=float(mean[0] - mean[1]),
        worst_auroc=float(worst[0] - worst[1]),
    )
