"""The benchmark of nuisances: does a batch stay as it is judged if its images are compressed, moved or darkened?

Every nuisance is applied in three ways, and everything is scored with the service's default options:

    all   to all images of a batch: a camera that moved, another codec
    half  to a random half of a batch: the images come of two sources
    one   to one normal image of a batch without outliers: a single file of another kind
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from service.core.detect import ood
from service.core.detect.scoring import Scores, score
from service.core.population import Population
from service.inference.onnx_runtime import OnnxNetworks
from service.inference.protocol import CheckedLatents
from train.benchmarks.contexts import LabelledContext, sample, summarize
from train.benchmarks.nuisance_kinds import NUISANCES
from train.data.dataset import Dataset

Uint8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

# Images and outliers of the batches; one in LARGE_EVERY is large.
SMALL, LARGE, LARGE_EVERY = (60, 4), (350, 25), 5
# Normal images of each batch without outliers that are treated, one at a time.
ONES = 6
# The goals for the nuisances that are judged.
LEAST_AUROC, LEAST_WORST, MOST_FALSE_FLAGS, MOST_ONES = 0.985, 0.95, 0.015, 0.03


@dataclass(frozen=True)
class Encoded:
    """The images of one context, encoded: latents (n, 2, L), and reconstruction errors (n,)."""

    latents: NDArray[np.float32]
    error: NDArray[np.float32]

    @classmethod
    def of(cls, checked: CheckedLatents) -> Encoded:
        return cls(checked.latents, checked.reconstruction_error)

    def mix(self, other: Encoded, which: BoolArray) -> Encoded:
        """Return these images, but those of `other` where `which` (n,) says so."""
        return Encoded(
            np.where(which[:, None, None], other.latents, self.latents), np.where(which, other.error, self.error)
        )


def draw(dataset_factors: NDArray[np.int64], held_out: BoolArray, contexts: int, seed: int) -> list[LabelledContext]:
    """Draw `contexts` batches with outliers, then as many small ones without."""
    drawn = []
    for index in range(2 * contexts):
        rng = np.random.default_rng([seed, index])
        size, outliers = LARGE if index % LARGE_EVERY == 0 and index < contexts else SMALL
        drawn.append(
            sample(dataset_factors, rng, size=size, outliers=outliers if index < contexts else 0, held_out=held_out)
        )
    return drawn


def run(
    networks: OnnxNetworks, population: Population, dataset: Dataset, contexts: list[LabelledContext], seed: int
) -> list[dict[str, Any]]:
    """Return an entry for every nuisance. The rows of `contexts` are rows of `dataset`."""
    untreated = [Encoded.of(networks.encode_checked(dataset.images[context.rows])) for context in contexts]
    entries = []
    for number, name in enumerate(tqdm(NUISANCES, "nuisances")):
        nuisance = NUISANCES[name]
        outcome = _Outcome()
        for index, (context, clean) in enumerate(zip(contexts, untreated, strict=True)):
            rng = np.random.default_rng([seed, number, index])
            treated = Encoded.of(networks.encode_checked(nuisance.treat(dataset.images[context.rows], rng)))
            if context.is_outlier.any():
                half = rng.permutation(len(context.rows)) < len(context.rows) // 2
                outcome.add("all", treated, context.is_outlier, population)
                outcome.add("half", clean.mix(treated, half), context.is_outlier, population)
            else:
                for row in rng.choice(len(context.rows), ONES, replace=False):
                    one = np.arange(len(context.rows)) == row
                    outcome.add_one(clean.mix(treated, one), int(row), population)
        entries.append({"nuisance": name, "judged": nuisance.judged, **outcome.report()})
    return entries


class _Outcome:
    """What one nuisance does to all contexts."""

    def __init__(self) -> None:
        self.areas: dict[str, list[float]] = {"all": [], "half": []}
        self.false_flags: dict[str, list[float]] = {"all": [], "half": []}
        self.found: dict[str, list[float]] = {"all": [], "half": []}
        self.foreign: dict[str, list[float]] = {"all": [], "half": []}
        self.one_flagged: list[bool] = []
        self.one_foreign: list[bool] = []

    def add(self, way: str, images: Encoded, is_outlier: BoolArray, population: Population) -> None:
        scores, is_foreign = judge(images, population)
        self.areas[way].append(float(roc_auc_score(is_outlier, scores.outlier_score)))
        self.false_flags[way].append(float(scores.is_outlier[~is_outlier].mean()))
        self.found[way].append(float(scores.is_outlier[is_outlier].mean()))
        self.foreign[way].append(float(is_foreign.mean()))

    def add_one(self, images: Encoded, row: int, population: Population) -> None:
        scores, is_foreign = judge(images, population)
        self.one_flagged.append(bool(scores.is_outlier[row]))
        self.one_foreign.append(bool(is_foreign[row]))

    def report(self) -> dict[str, Any]:
        ways = {
            way: {
                "auroc": summarize(self.areas[way]),
                "false_flags": float(np.mean(self.false_flags[way])),
                "found": float(np.mean(self.found[way])),
                "foreign": float(np.mean(self.foreign[way])),
            }
            for way in ("all", "half")
        }
        return {
            **ways,
            "one": {
                "images": len(self.one_flagged),
                "flagged": float(np.mean(self.one_flagged)),
                "foreign": float(np.mean(self.one_foreign)),
            },
        }


def judge(images: Encoded, population: Population) -> tuple[Scores, BoolArray]:
    """Score one batch as the service does by default; also return which images (n,) are foreign in it."""
    if population.familiarity is None:
        return score(images.latents, population), np.zeros(len(images.latents), dtype=bool)
    check = ood.check(images.error, population.familiarity)
    check = check.in_context(ood.contextual_limit(check.error_ratio, population.familiarity))
    return score(images.latents, population, ood_ratio=check.ood_ratio), check.is_ood


def meets_goals(entry: dict[str, Any]) -> bool:
    """Return whether the entry of one nuisance meets the goals for those that are judged."""
    return entry["one"]["flagged"] <= MOST_ONES and all(
        entry[way]["auroc"]["mean"] >= LEAST_AUROC
        and entry[way]["auroc"]["worst_decile"] >= LEAST_WORST
        and entry[way]["false_flags"] <= MOST_FALSE_FLAGS
        for way in ("all", "half")
    )


def rows_of(contexts: list[LabelledContext]) -> NDArray[np.int64]:
    """Return the rows, rising, of all images of `contexts`."""
    return np.unique(np.concatenate([context.rows for context in contexts]))


def renumber(contexts: list[LabelledContext], rows: NDArray[np.int64]) -> list[LabelledContext]:
    """Return `contexts` with places among `rows` instead of rows."""
    return [
        LabelledContext(np.searchsorted(rows, context.rows), context.is_outlier, context.rows[:0], context.fixed)
        for context in contexts
    ]


def all_factors(sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the factor classes (N, K) of all combinations, the last factor varying fastest."""
    return np.stack(np.unravel_index(np.arange(math.prod(sizes)), sizes), axis=1).astype(np.int64)
