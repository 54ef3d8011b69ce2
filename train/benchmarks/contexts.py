"""Labelled contexts, drawn from labelled images, and how well an estimator detects their outliers.

A context fixes some generative factors. Its inliers share those values and vary freely in all other factors. A stratum
says how an outlier breaks the rule:

    any_difference   at least one fixed factor differs (most outliers then differ in several)
    single_factor    exactly one fixed factor differs
    adjacent_level   exactly one differs, by one level (hues wrap around; shapes have no order)
    shape_only       the shape differs and nothing else that is fixed
    common_cause     at least one fixed factor differs, and all outliers share their wrong values
    copies           the same, and all outliers are copies of one image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from service.core.detect.gaussian import log_density
from service.core.detect.scoring import score
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]
Stratum = Literal["any_difference", "single_factor", "adjacent_level", "shape_only", "common_cause", "copies"]
STRATA: tuple[Stratum, ...] = get_args(Stratum)

# 3D Shapes: floor hue, wall hue, object hue, scale, shape, orientation.
LEVELS = np.array([10, 10, 10, 8, 4, 15])
HUES = (0, 1, 2)
SHAPE, SPHERE = 4, 2
SEED_CASE_SIZE, SEED_CASE_OUTLIERS = 350, 25
# The oracle needs this many possible inliers to know their true moments.
SMALLEST_POOL = 30


@dataclass(frozen=True)
class LabelledContext:
    """A context: rows of a data set, the outliers among them, and all rows that could have been inliers."""

    rows: IntArray  # (n,)
    is_outlier: NDArray[np.bool_]  # (n,)
    inlier_pool: IntArray
    fixed: tuple[int, ...]  # the factors that the inliers share


def sample(
    factors: IntArray,
    rng: np.random.Generator,
    *,
    size: int,
    outliers: int,
    stratum: Stratum = "any_difference",
    fixed: tuple[int, ...] | None = None,
    values: tuple[int | None, ...] | None = None,
    held_out: NDArray[np.bool_] | None = None,
) -> LabelledContext:
    """Draw one context of `size` images, `outliers` of them outliers, from `factors` (N, 6).

    `fixed` are the factors that the inliers share. By default one to four are drawn at random, again until the data
    holds enough inliers and outliers. `values` sets the values of `fixed`; None draws a value at random. Images are
    drawn without replacement, except where `fixed` is set and leaves too few, and for copies. Inliers that are
    `held_out` (N,) come first, others only where those are too few.

    Raises ValueError for more outliers than images.
    """
    if not 0 <= outliers <= size:
        raise ValueError(f"{outliers} outliers do not fit into {size} images")
    while True:
        shared = fixed or tuple(rng.choice(len(LEVELS), size=rng.integers(1, 5), replace=False))
        if stratum == "shape_only" and SHAPE not in shared:
            shared = (*shared[1:], SHAPE)
        example = factors[rng.integers(len(factors))]
        targets = [example[factor] for factor in shared]
        if values is not None:
            pinned = zip(values, targets, strict=True)
            targets = [target if value is None else value for value, target in pinned]
        differs = factors[:, shared] != targets
        wrong = differs.sum(axis=1)
        inlier_pool = np.flatnonzero(wrong == 0)
        if stratum in ("any_difference", "common_cause", "copies"):
            outlier_pool = np.flatnonzero(wrong > 0)
        else:
            candidates = np.flatnonzero(wrong == 1)
            column = differs[candidates].argmax(axis=1)
            factor = np.array(shared)[column]
            if stratum == "shape_only":
                keep = factor == SHAPE
            elif stratum == "adjacent_level":
                distance = np.abs(factors[candidates, factor] - np.array(targets)[column])
                around = np.isin(factor, HUES) & (distance == LEVELS[factor] - 1)
                keep = (distance == 1) | around | (factor == SHAPE)
            else:
                keep = np.ones(len(candidates), dtype=bool)
            outlier_pool = candidates[keep]
        if stratum in ("common_cause", "copies") and len(outlier_pool):
            cause = factors[rng.choice(outlier_pool)]
            same = (factors[:, shared] == cause[list(shared)]).all(axis=1)
            same_image = np.flatnonzero((factors == cause).all(axis=1))[:1]
            outlier_pool = same_image if stratum == "copies" else np.flatnonzero(same)
        enough = len(inlier_pool) >= max(size - outliers, SMALLEST_POOL) and (
            len(outlier_pool) >= outliers or stratum == "copies"
        )
        if enough or (fixed is not None and len(inlier_pool) and len(outlier_pool)):
            break
    inliers = _draw_inliers(inlier_pool, size - outliers, rng, held_out)
    misfits = rng.choice(outlier_pool, outliers, replace=len(outlier_pool) < outliers)
    order = rng.permutation(size)
    is_outlier = np.arange(size) >= size - outliers
    fixed_factors = tuple(int(factor) for factor in shared)
    return LabelledContext(np.concatenate([inliers, misfits])[order], is_outlier[order], inlier_pool, fixed_factors)


def _draw_inliers(pool: IntArray, count: int, rng: np.random.Generator, held_out: NDArray[np.bool_] | None) -> IntArray:
    """Return `count` rows of a pool, those that are held out first."""
    if held_out is None or len(pool) < count:
        return np.asarray(rng.choice(pool, count, replace=len(pool) < count))
    shuffled = rng.permutation(pool)
    return np.asarray(shuffled[np.argsort(~held_out[shuffled], kind="stable")][:count])


def sample_seed_case(factors: IntArray, rng: np.random.Generator) -> LabelledContext:
    """Draw the seed's case: spheres of one colour before a wall of one colour, and 25 other images of 350."""
    return sample(
        factors,
        rng,
        size=SEED_CASE_SIZE,
        outliers=SEED_CASE_OUTLIERS,
        fixed=(SHAPE, 1, 2),
        values=(SPHERE, None, None),
    )


def oracle_odds(latents: FloatArray, context: LabelledContext, population: Population) -> FloatArray:
    """Return log odds (n,) of population against a Gaussian with the true moments of the inliers.

    This bounds what a Gaussian estimator can reach.
    """
    live = population.live_dims
    means = latents[:, 0]
    inliers, images = (means[rows][:, live].astype(np.float64) for rows in (context.inlier_pool, context.rows))
    tiny = 1e-6 * np.eye(live.size)
    background = population.covariance[np.ix_(live, live)] + tiny
    normal = np.atleast_2d(np.cov(inliers, rowvar=False)) + tiny
    odds: FloatArray = log_density(images, population.location[live], background) - log_density(
        images, inliers.mean(axis=0), normal
    )
    return odds


def summarize(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Return the mean with a 95% bootstrap interval over contexts, the mean of the worst tenth, and the minimum."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    rng = np.random.default_rng(seed)
    means = rng.choice(ordered, (1000, len(ordered))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    worst = ordered[: max(len(ordered) // 10, 1)].mean()
    return {
        "mean": float(ordered.mean()),
        "low": float(low),
        "high": float(high),
        "worst_decile": float(worst),
        "minimum": float(ordered[0]),
    }


def evaluate(
    latents: FloatArray,
    population: Population,
    contexts: Sequence[LabelledContext],
    estimator: EstimatorName = DEFAULT_ESTIMATOR,
    fdr: float = 0.1,
) -> dict[str, object]:
    """Score `contexts` with `estimator` and compare with their labels.

    The report holds the AUROC of the estimator and of the oracle, the share of inliers that are flagged, and the share
    of inliers among the flags at a false discovery rate of `fdr`.
    """
    areas: list[float] = []
    oracle_areas: list[float] = []
    false_flags: list[float] = []
    false_discoveries: list[float] = []
    for context in contexts:
        images, truth = latents[context.rows], context.is_outlier
        scores = score(images, population, estimator=estimator)
        at_rate = score(images, population, estimator=estimator, fdr=fdr).is_outlier
        false_flags.append(float(scores.is_outlier[~truth].mean()))
        false_discoveries.append(float((at_rate & ~truth).sum() / max(at_rate.sum(), 1)))
        if truth.any():
            areas.append(float(roc_auc_score(truth, scores.outlier_score)))
            oracle_areas.append(float(roc_auc_score(truth, oracle_odds(latents, context, population))))
    report: dict[str, object] = {
        "estimator": estimator,
        "contexts": len(contexts),
        "false_flag_rate": float(np.mean(false_flags)),
        "false_discovery_rate": float(np.mean(false_discoveries)),
    }
    if areas:
        report |= {"auroc": summarize(areas), "oracle_auroc": summarize(oracle_areas)}
    return report


def seed_case(
    latents: FloatArray,
    factors: IntArray,
    population: Population,
    draws: int = 100,
    seed: int = 0,
    estimator: EstimatorName = DEFAULT_ESTIMATOR,
) -> dict[str, object]:
    """Run `evaluate` over `draws` random draws of the seed's case. Latents are (N, 2, L), factors (N, 6)."""
    rng = np.random.default_rng(seed)
    return evaluate(latents, population, [sample_seed_case(factors, rng) for _ in range(draws)], estimator)
