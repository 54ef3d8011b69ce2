"""From latents to scores: how far an image is from its context, how probably it is a misfit, and its rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.core.detect.context import Context
from service.core.detect.estimators import estimator_named, estimator_of
from service.core.detect.fit import check_latents, fit
from service.core.detect.gaussian_odds import background_fit, normal_fit
from service.core.detect.ood import is_ood
from service.core.detect.posterior import log_odds, two_group_posterior
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName, Float64Array, Reliability
from service.errors import InvalidInput, InvalidOption

HEAVY_CONTAMINATION = 0.4
# An out-of-distribution image scores more than this, and more than any image that the model knows.
OOD_SCORE = 1e6


@dataclass(frozen=True)
class Scores:
    """The scores of n images, in input order.

    outlier_score        (n,)  ranks the images: log posterior odds of being an outlier where the estimator ranks by
                               odds, otherwise mahalanobis_squared. Of an out-of-distribution image it is its ood_ratio
                               times OOD_SCORE, or times the largest score of the others where that is more
    mahalanobis_squared  (n,)  squared distance to the context over the live latents; by `leave_one_out` in a batch, to
                               the moments of the other images
    outlier_probability  (n,)  posterior probability in [0, 1] that the image comes from the population rather than from
                               the context, given its latents (ranked by odds) or its distance (otherwise); 1 for an
                               out-of-distribution image
    is_outlier           (n,)
    rank                 (n,)  1 is the most outlying image; ties go to the earlier one
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
    estimator: EstimatorName = DEFAULT_ESTIMATOR,
    threshold: float = 0.5,
    fdr: float | None = None,
    reference: NDArray[np.floating] | None = None,
    context: Context | None = None,
    ood_ratio: NDArray[np.floating] | None = None,
) -> Scores:
    """Score `latents` (n, 2, L), mean and logvar, against each other, `reference` (m, 2, L), or a fitted `context`.

    An image is flagged where its outlier probability exceeds `threshold`. With `fdr` instead, the largest top-ranked
    set is
    flagged whose mean of (1 - outlier probability) is at most `fdr`. An out-of-distribution image, by its `ood_ratio`
    (n,), ranks above the others, is always flagged and takes no part in the context.

    Raises InvalidOption, ShapeMismatch, InvalidInput (no images, or latents that are not finite) and ContextTooSmall
    (an empty reference).
    """
    _check_options(estimator, threshold, fdr)
    check_latents("latents", latents, population)
    if len(latents) == 0:
        raise InvalidInput("Received 0 images, expected at least 1.", "Send the images to be scored.")
    ood = np.zeros(len(latents), dtype=bool) if ood_ratio is None else is_ood(ood_ratio)
    if context is None:
        native = latents[~ood]
        context = (
            fit(reference, population, estimator=estimator, source="reference")
            if reference is not None
            else fit(native, population, estimator=estimator, source="batch")
        )
    units = PopulationUnits.of(population)
    points = units.points(latents)

    fitted_by = estimator_of(context)
    distances = fitted_by.distances(points, context, units, ~ood)
    odds = log_odds(latents, context, population)
    if fitted_by.ranks_by_odds or context.source == "population" or units.live.size == 0:
        probability: Float64Array = expit(odds)
    else:
        fitted, background = normal_fit(context, units), background_fit(context, units)
        probability = two_group_posterior(distances, ~ood, fitted, background, context.source)
    outlier_score = odds if fitted_by.ranks_by_odds else distances
    if ood_ratio is not None:
        above = max(OOD_SCORE, outlier_score[~ood].max(initial=0))
        outlier_score = np.where(ood, above * ood_ratio, outlier_score)
        probability = np.where(ood, 1.0, probability)
    rank = np.empty(len(points), dtype=np.int64)
    rank[np.argsort(-outlier_score, kind="stable")] = np.arange(1, len(points) + 1)
    flags = probability > threshold if fdr is None else false_discovery_flags(probability, rank, fdr)

    if context.source == "batch":
        context = _of_batch(context, probability, ood)
    return Scores(context, outlier_score, distances, probability, flags | ood, rank)


def false_discovery_flags(probability: Float64Array, rank: NDArray[np.int64], fdr: float) -> NDArray[np.bool_]:
    """Return flags (n,) of the largest top-ranked set whose mean of (1 - probability) is at most `fdr`.

    One minus the probability is the local false discovery rate (Efron 2008).
    """
    order = np.argsort(rank)
    running = np.cumsum(1 - probability[order]) / np.arange(1, len(rank) + 1)
    flagged = np.flatnonzero(running <= fdr)
    return rank <= (flagged[-1] + 1 if flagged.size else 0)


def _of_batch(context: Context, probability: Float64Array, ood: NDArray[np.bool_]) -> Context:
    """Return the batch's context, with the share of outliers among its images and the warnings that follow from it."""
    found = float(probability[~ood].mean())
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
    estimator_named(estimator)
    if not 0 <= threshold <= 1:
        raise InvalidOption(f"threshold is {threshold!r}, expected a probability between 0 and 1.")
    if fdr is not None and not 0 < fdr <= 1:
        raise InvalidOption(f"fdr is {fdr!r}, expected a rate above 0 and at most 1.")
