"""From latents to scores: how far an image is from its context, how probably it is a misfit, and its rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.core.detect.classical import is_degenerate, leave_one_out_distances
from service.core.detect.context import Context
from service.core.detect.fit import canonical_order, check_estimator, check_latents, fit
from service.core.detect.posterior import (
    background_fit,
    log_odds,
    mahalanobis,
    noise_floor,
    normal_fit,
    two_group_posterior,
)
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, ContextEstimator, Estimator, Float64Array, Reliability
from service.errors import InvalidInput, InvalidOption

# Those whose score is the log posterior odds of being an outlier; the others' is the distance.
RANKED_BY_ODDS: tuple[ContextEstimator, ...] = ("density_ratio", "mixture", "moments")
HEAVY_CONTAMINATION = 0.4
# A foreign image scores more than this, and more than any image that the model knows.
FOREIGN_SCORE = 1e6


@dataclass(frozen=True)
class Scores:
    """One entry for every image, in input order.

    outlier_score        (n,)  what ranks: log posterior odds of being an outlier (RANKED_BY_ODDS), in every
                               other estimator mahalanobis_squared; a foreign image's is its foreignness times
                               FOREIGN_SCORE, or times the largest of the others' where that is more
    mahalanobis_squared  (n,)  squared distance to the context over the live latents (`leave_one_out` in a
                               batch: to the moments of the other images)
    outlier_probability  (n,)  posterior probability in [0, 1] of having come from the population rather than
                               from the context, given its latents (RANKED_BY_ODDS) or its distance (others);
                               1 for a foreign image
    is_outlier           (n,)
    rank                 (n,)  1 = most outlying; ties go to the earlier image
    """

    context: Context
    outlier_score: Float64Array
    mahalanobis_squared: Float64Array
    outlier_probability: Float64Array
    is_outlier: NDArray[np.bool_]
    rank: NDArray[np.int64]


def score(
    latents: NDArray[np.floating],
    population: Population,
    *,
    estimator: Estimator = DEFAULT_ESTIMATOR,
    threshold: float = 0.5,
    fdr: float | None = None,
    reference: NDArray[np.floating] | None = None,
    context: Context | None = None,
    foreignness: NDArray[np.floating] | None = None,
) -> Scores:
    """Score `latents` (n, 2, L), mean and logvar, against each other, `reference` (m, 2, L), or a fitted `context`.

    An image is flagged where its outlier probability exceeds `threshold`; with `fdr`, instead, the largest
    top-ranked set is flagged whose mean of (1 - outlier probability) is at most `fdr`. An image whose
    `foreignness` (n,) exceeds 1 is unlike anything that the model was trained on: it ranks above the others, is
    always flagged and takes no part in the context.

    Raises InvalidOption, ShapeMismatch, InvalidInput (no images, or latents that are not finite) and
    ContextTooSmall (an empty reference).
    """
    _check_options(estimator, threshold, fdr)
    check_latents("latents", latents, population)
    if len(latents) == 0:
        raise InvalidInput("Received 0 images, expected at least 1.", "Send the images to be scored.")
    foreign = np.zeros(len(latents), dtype=bool) if foreignness is None else foreignness > 1
    if context is None:
        native = latents[~foreign]
        context = (
            fit(reference, population, estimator=estimator, source="reference")
            if reference is not None
            else fit(native, population, estimator=estimator, source="batch")
        )
    units = PopulationUnits.of(population)
    points = units.points(latents)

    if context.estimator == "leave_one_out" and context.source == "batch" and context.size > 2:
        distances = mahalanobis(latents, context, population)
        # A canonical order, so that sums round alike however the images are permuted.
        order = np.flatnonzero(~foreign)[canonical_order(points[~foreign])]
        # The published formula has no floor: it stays exact wherever the others' covariance can be inverted.
        floor = noise_floor(context.posterior_variance, units)
        needed = floor if is_degenerate(points[order]) else np.zeros_like(floor)
        distances[order] = leave_one_out_distances(points[order], needed)
    else:
        distances = mahalanobis(latents, context, population)
    odds = log_odds(latents, context, population)
    ranks_by_odds = context.estimator in RANKED_BY_ODDS
    if ranks_by_odds or context.source == "population" or units.live.size == 0:
        probability: Float64Array = expit(odds)
    else:
        fitted, background = normal_fit(context, units), background_fit(context, units)
        probability = two_group_posterior(distances, ~foreign, fitted, background, context.source)
    outlier_score = odds if ranks_by_odds else distances
    if foreignness is not None:
        above = max(FOREIGN_SCORE, outlier_score[~foreign].max(initial=0))
        outlier_score = np.where(foreign, above * foreignness, outlier_score)
        probability = np.where(foreign, 1.0, probability)
    rank = np.empty(len(points), dtype=np.int64)
    rank[np.argsort(-outlier_score, kind="stable")] = np.arange(1, len(points) + 1)
    flags = probability > threshold if fdr is None else false_discovery_flags(probability, rank, fdr)

    if context.source == "batch":
        context = _of_batch(context, probability, foreign)
    return Scores(context, outlier_score, distances, probability, flags | foreign, rank)


def false_discovery_flags(probability: Float64Array, rank: NDArray[np.int64], fdr: float) -> NDArray[np.bool_]:
    """The largest top-ranked set whose mean local false discovery rate, 1 - probability, is at most `fdr`."""
    order = np.argsort(rank)
    running = np.cumsum(1 - probability[order]) / np.arange(1, len(rank) + 1)
    flagged = np.flatnonzero(running <= fdr)
    return rank <= (flagged[-1] + 1 if flagged.size else 0)


def _of_batch(context: Context, probability: Float64Array, foreign: NDArray[np.bool_]) -> Context:
    """The batch's context once the batch is scored: with the share of outliers found, and what to warn of."""
    found = float(probability[~foreign].mean())
    contamination = found if context.contamination is None else context.contamination
    warnings = context.warnings
    if contamination >= HEAVY_CONTAMINATION:
        warnings = (
            *warnings,
            f"About {contamination:.0%} of the images look like outliers, so what is normal is uncertain: "
            "send a reference set of normal images.",
        )
    reliability: Reliability = "low" if warnings else "high"
    return replace(context, contamination=contamination, reliability=reliability, warnings=warnings)


def _check_options(estimator: str, threshold: float = 0.5, fdr: float | None = None) -> None:
    check_estimator(estimator)
    if not 0 <= threshold <= 1:
        raise InvalidOption(f"threshold is {threshold!r}, expected a probability between 0 and 1.")
    if fdr is not None and not 0 < fdr <= 1:
        raise InvalidOption(f"fdr is {fdr!r}, expected a rate above 0 and at most 1.")
