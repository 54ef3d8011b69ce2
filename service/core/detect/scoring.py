"""From latents to scores: how far an image is from its context, how probably it is a misfit, and its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.core.decide.doubt import find_doubts, temper
from service.core.decide.groups import find_common_cause, find_groups
from service.core.decide.kinds import Group, find_dense, find_missed_exceptions
from service.core.detect.batch_context import CLEARLY_MISFITS, find_batch_kinds, fit_batch
from service.core.detect.context import Context
from service.core.detect.estimators.registry import estimator_named, estimator_of
from service.core.detect.fit import HEAVY_CONTAMINATION, check_latents, fit
from service.core.detect.gaussian_odds import noise_floor
from service.core.detect.ood import MOST_FOREIGN, is_ood
from service.core.detect.posterior import (
    hidden_share,
    is_graded,
    least_probability,
    posterior_log_odds,
    ranking_scores,
    recognised_share,
    share_of_outliers,
)
from service.core.detect.standardize import PopulationUnits
from service.core.detect.wide_batch import error_odds, likeness
from service.core.distributions import median
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, BoolArray, EstimatorName, Float64Array
from service.errors import InvalidInput, InvalidOption

# An out-of-distribution image scores more than this, and more than any image that the model knows.
OOD_SCORE = 1e6


@dataclass(frozen=True)
class Scores:
    """The scores of n images, in input order.

    outlier_score        (n,)  ranks the images: log odds of being an outlier where the estimator ranks by odds, 0 where
                               the probability is 1/2, otherwise mahalanobis_squared. Of an out-of-distribution image
                               it is OOD_SCORE, or the largest score of the others where that is more, times its
                               ood_ratio; all have the same where they are more than MOST_FOREIGN of the images
    mahalanobis_squared  (n,)  squared distance to the context over the live latents; by `leave_one_out` in a batch, to
                               the moments of the other images
    outlier_probability  (n,)  posterior probability in [0, 1] that the image is an outlier, by the calibrated score; 1
                               for an out-of-distribution image
    is_outlier           (n,)
    rank                 (n,)  1 is the most outlying image; ties go to the earlier one
    by_error             (n,)  the part of the outlier_score that no latent has: 0 but in a batch as wide as the
                               population
    groups               of images that are alike and apart from the rest of the batch; members are rows of the n
    """

    context: Context
    outlier_score: Float64Array
    mahalanobis_squared: Float64Array
    outlier_probability: Float64Array
    is_outlier: NDArray[np.bool_]
    rank: NDArray[np.int64]
    by_error: Float64Array
    groups: tuple[Group, ...] = ()


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
    error: NDArray[np.floating] | None = None,
) -> Scores:
    """Score `latents` (n, 2, L), mean and logvar, against each other, `reference` (m, 2, L), or a fitted `context`.

    An image is flagged where its outlier probability exceeds `threshold`. With `fdr` instead, the largest top-ranked
    set is flagged whose mean of (1 - outlier probability) is at most `fdr`. An out-of-distribution image, by its
    `ood_ratio` (n,), ranks above the others, is always flagged and takes no part in the context. In a batch that is as
    wide as the population, `error` (n,) counts as well: how much of each image no latent knows.

    Raises InvalidOption, ShapeMismatch, InvalidInput (no images, or latents that are not finite) and ContextTooSmall
    (an empty reference).
    """
    _check_options(estimator, threshold, fdr)
    check_latents("latents", latents, population)
    if len(latents) == 0:
        raise InvalidInput("Received 0 images, expected at least 1.", "Send the images to be scored.")
    ood = np.zeros(len(latents), dtype=bool) if ood_ratio is None else is_ood(ood_ratio)
    units = PopulationUnits.of(population)
    points, members = units.points(latents), ~ood
    scores, kinds = None, None
    if context is None and reference is not None:
        context = fit(reference, population, estimator=estimator, source="reference")
    elif context is None:
        kinds = find_batch_kinds(latents, ~ood, units)
        context, members, scores = fit_batch(latents, ~ood, units, estimator, kinds, ood_ratio)
        if context.source == "population" and units.live.size:
            context = _without_batch(context, int(ood.sum()), len(latents))
    fitted_by = estimator_of(context)

    if scores is None:
        scores = ranking_scores(fitted_by, points, context, units, members)
    odds = posterior_log_odds(scores, points, context, units)
    probability: Float64Array = expit(odds)
    groups: list[Group] = []
    if context.source == "batch":
        seen, groups = _with_groups(points, scores, probability, ood, kinds, context, units)
        probability = _with_hidden(seen, context, units)
        warnings = _list_warnings(context, scores, seen, ood, groups, units)
        context = replace(
            context,
            contamination=float(probability[~ood].mean()),
            reliability="low" if warnings else "high",
            warnings=tuple(warnings),
        )
    distances = scores if not fitted_by.ranks_by_odds else fitted_by.distances(points, context, units, members)
    by_error = np.zeros(len(points))
    if error is not None and (counts := _share_of_error(context, units)) > 0:
        by_error[~ood] = counts * error_odds(error[~ood].astype(np.float64), distances[~ood])
    outlier_score = scores
    if fitted_by.ranks_by_odds:
        outlier_score = odds if context.calibration is None else _outlier_scores(scores + by_error, context, ~ood)
    if ood_ratio is not None:
        above = max(OOD_SCORE, outlier_score[~ood].max(initial=0))
        ranked = ood_ratio if ood.mean() <= MOST_FOREIGN else np.ones(len(ood))
        outlier_score = np.where(ood, above * ranked, outlier_score)
        probability = np.where(ood, 1.0, probability)
    rank = np.empty(len(points), dtype=np.int64)
    rank[np.argsort(-outlier_score, kind="stable")] = np.arange(1, len(points) + 1)
    flags = probability > threshold if fdr is None else false_discovery_flags(probability, rank, fdr, ~ood)
    return Scores(context, outlier_score, distances, probability, flags | ood, rank, by_error, tuple(groups))


def _outlier_scores(scores: Float64Array, context: Context, native: BoolArray) -> Float64Array:
    """Return scores (n,) that are 0 where the probability is 1/2.

    Where a batch does not tell outliers, the probability is the same everywhere. The median `native` image then has the
    score 0.
    """
    assert context.calibration is not None
    if context.calibration.tells_outliers:
        return scores - context.calibration.zero(share_of_outliers(context))
    if context.source != "batch" or not native.any():
        return scores
    return np.asarray(scores - median(scores[native]))


def _share_of_error(context: Context, units: PopulationUnits) -> float:
    """Return how much errors count beside squared distances, from 0 to 1: where a batch does not tell outliers, as much
    as it is like the population.
    """
    if context.source != "batch" or context.calibration is None or context.calibration.tells_outliers:
        return 0.0
    return likeness(context.moments, context.posterior_variance, units)


def false_discovery_flags(
    probability: Float64Array, rank: NDArray[np.int64], fdr: float, native: BoolArray
) -> NDArray[np.bool_]:
    """Return flags (n,) of the largest top-ranked set whose mean of (1 - probability) is at most `fdr`.

    One minus the probability is the local false discovery rate (Efron 2008). Only `native` (n,) images count: the
    others are certain, and would pay for doubtful ones. No image is flagged that is more probably normal.
    """
    order = np.argsort(rank)
    order = order[native[order]]
    running = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    possible = np.flatnonzero((running <= fdr) & (probability[order] >= 0.5))
    flags = np.zeros(len(rank), dtype=bool)
    flags[order[: possible[-1] + 1 if possible.size else 0]] = True
    return flags & (probability >= 0.5)


def _without_batch(context: Context, foreign: int, count: int) -> Context:
    """Return the population's context with a warning that `foreign` of the `count` images leave no batch."""
    if foreign == 0:
        return context
    rest = "none is left to make a batch" if foreign == count else "a single other one makes no batch"
    warning = f"{foreign} of the {count} images look foreign, and {rest}: scored against the model's population."
    return replace(context, warnings=(warning,))


def _with_groups(
    points: Float64Array,
    scores: Float64Array,
    probability: Float64Array,
    ood: BoolArray,
    kinds: Group | None,
    context: Context,
    units: PopulationUnits,
) -> tuple[Float64Array, list[Group]]:
    """Return the probabilities (n,) once groups are known, and the groups. `kinds` by `find_batch_kinds`.

    A flagged group that is alike may be one of several kinds that are equally common: its images are outliers only if
    they are misfits after all. Those that a heavy tail may have made are less probable.
    """
    native = np.flatnonzero(~ood)
    flagged = probability[native] > 0.5
    floor = noise_floor(context.posterior_variance, units)
    found = find_groups(points[native], flagged, floor, units.draws, kinds)
    if not found and not units.population.graded:
        missed = (
            find_common_cause(points[native], scores[native], floor)
            or find_dense(points[native], floor)
            or find_missed_exceptions(points[native], flagged, floor, units.draws)
        )
        found = [missed] if missed else []
    groups = [replace(group, members=native[group.members]) for group in found]
    probability = probability.copy()
    for group in groups:
        members = group.members[probability[group.members] > 0.5]
        probability[members] *= group.are_misfits
    smallest_scale = _smallest_scale(context, units)
    if smallest_scale is not None:
        alike = _members_of(groups, len(points))[native]
        probability[native] = temper(probability[native], scores[native], alike, smallest_scale)
    return probability, groups


def _members_of(groups: Sequence[Group], count: int) -> BoolArray:
    """Return which of `count` images are in a group."""
    alike = np.zeros(count, dtype=bool)
    for group in groups:
        alike[group.members] = True
    return alike


def _smallest_scale(context: Context, units: PopulationUnits) -> float | None:
    """Return the spread of scores that noise may cause; None where no gap tells tails from misfits.

    A graded population knows its own tails.
    """
    estimator = estimator_of(context)
    return None if context.calibration is None or is_graded(estimator, units) else estimator.smallest_scale


def _with_hidden(probability: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
    """Return the probabilities (n,), none below that of a hidden misfit; their order stays."""
    if context.calibration is None or is_graded(estimator_of(context), units):
        return probability  # a graded calibration counts hidden misfits itself
    return np.asarray(np.maximum(probability, least_probability(context) * (1 + probability)))


def _list_warnings(
    context: Context,
    scores: Float64Array,
    probability: Float64Array,
    ood: NDArray[np.bool_],
    groups: Sequence[Group],
    units: PopulationUnits,
) -> list[str]:
    """Return the warnings of a batch's context, and those that follow from the share of outliers among its images."""
    contamination = float(probability[~ood].mean())
    warnings = list(context.warnings)
    for group in groups:
        count, size = len(group.members), int((~ood).sum())
        if group.are_misfits < CLEARLY_MISFITS:
            kinds = "two" if group.kinds == 2 else "several"
            warnings.append(
                f"The images are of {kinds} kinds, {count} and {size - count}: counting cannot tell which of them is "
                "normal. Send a reference set of normal images."
            )
        elif (probability[group.members] > 0.5).mean() <= 0.5:
            images = "1 image stands" if count == 1 else f"{count} images stand"
            warnings.append(
                f"{images} apart from the rest without a flag: look at `groups`, or send a reference set of "
                "normal images."
            )
    if contamination >= HEAVY_CONTAMINATION:
        warnings.append(
            f"About {contamination:.0%} of the images look like outliers, so what is normal is uncertain: "
            "send a reference set of normal images."
        )
    if context.calibration is not None:
        warnings += find_doubts(
            context.calibration,
            scores[~ood],
            probability[~ood],
            _members_of(groups, len(ood))[~ood],
            smallest_scale=_smallest_scale(context, units),
            hidden=hidden_share(context),
            recognised=recognised_share(context),
        )
    return warnings


def _check_options(estimator: str, threshold: float = 0.5, fdr: float | None = None) -> None:
    estimator_named(estimator)
    if not 0 <= threshold <= 1:
        raise InvalidOption(f"threshold is {threshold!r}, expected a probability between 0 and 1.")
    if fdr is not None and not 0 < fdr <= 1:
        raise InvalidOption(f"fdr is {fdr!r}, expected a rate above 0 and at most 1.")
