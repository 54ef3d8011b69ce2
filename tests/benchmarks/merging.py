"""Contexts of many shards, merged, against one context of all images: shares of misfits, ranks and flags.

    .venv/bin/python tests/benchmarks/merging.py [--shards 500] [--images 200] [--misfits 0.03]

Normal images lie within a tenth of the population's spread on half of the live latents, and misfits anywhere in the
population. Latents are simulated, so that the merged contexts are all that differs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from sklearn.metrics import roc_auc_score

from service.bundle import store
from service.core.detect import fit, scoring
from service.core.detect.posterior import mahalanobis
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import BoolArray, EstimatorName, Float64Array
from service.settings import BUNDLES

NARROW = 0.1


def simulate(
    population: Population, count: int, misfits: float, random: np.random.Generator
) -> tuple[Float64Array, BoolArray]:
    """Return latents (n, 2, L) and which of them are misfits (n,)."""
    units = PopulationUnits.of(population)
    factor = np.linalg.cholesky(units.correlation)
    width = np.where(np.arange(units.live.size) % 2 == 0, NARROW, 1.0)
    points = random.standard_normal((count, len(width))) @ factor.T
    is_misfit = random.random(count) < misfits
    points = np.where(is_misfit[:, None], points, points * width + (width < 1))
    mean = np.tile(population.location, (count, 1))
    mean[:, units.live] += points * units.unit
    logvar = np.broadcast_to(np.log(population.posterior_variance), mean.shape)
    return np.stack([mean, logvar], axis=1), is_misfit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--images", type=int, default=200, help="of one shard")
    parser.add_argument("--misfits", type=float, default=0.03)
    parser.add_argument("--bundle", default="shapes3d")
    parser.add_argument("--estimators", nargs="+", default=["ensemble", "mixture", "robust", "leave_one_out"])
    arguments = parser.parse_args()
    population, random = store.load(BUNDLES / arguments.bundle).population, np.random.default_rng(0)
    shards = [simulate(population, arguments.images, arguments.misfits, random) for _ in range(arguments.shards)]
    latents, is_misfit = simulate(population, 20_000, arguments.misfits, random)
    normal = np.concatenate([part[~wrong] for part, wrong in shards])
    whole = np.concatenate([part for part, _ in shards])
    print(f"{arguments.shards} shards of {arguments.images} images, {arguments.misfits:.0%} misfits")
    headings = "AUROC", "flagged misfits", "flagged others", "mean distance / d", "contamination", "reliability"
    print("|", " | ".join(("context", "estimator", *headings)), "|")
    print("|", " | ".join(["---"] * 8), "|")
    for name in arguments.estimators:
        estimator: EstimatorName = name
        contexts = [fit.fit(part, population, estimator=estimator) for part, _ in shards]
        candidates = {
            "merged": fit.merge(contexts, population),
            "merged, all images counted": fit.merge(
                [replace(each, contamination=None) for each in contexts], population
            ),
            "one of all": fit.fit(whole, population, estimator=estimator),
            "one of the normal images": fit.fit(normal, population, estimator=estimator),
        }
        for label, context in candidates.items():
            scores = scoring.score(latents, population, context=context)
            distance = mahalanobis(latents[~is_misfit], context, population).mean() / len(population.live_dims)
            print(
                f"| {label} | {name} | {roc_auc_score(is_misfit, scores.outlier_score):.4f} "
                f"| {scores.is_outlier[is_misfit].mean():.1%} | {scores.is_outlier[~is_misfit].mean():.2%} "
                f"| {distance:.2f} | {context.contamination or 0:.1%} | {context.reliability} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
