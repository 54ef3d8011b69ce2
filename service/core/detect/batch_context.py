"""The context of a batch: fitted to its images without those that are clearly misfits.

Misfits that share their cause vouch for each other, as long as they take part in the context. Those that can be told
from the rest without knowing it better are left out: a kind of its own, and highest-ranked images that are alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.core.decide.groups import find_common_cause
from service.core.decide.kinds import FEWEST_TO_SPLIT, Group, find_kinds
from service.core.detect.context import Context
from service.core.detect.estimators.registry import estimator_of
from service.core.detect.fit import fit
from service.core.detect.gaussian_odds import noise_floor
from service.core.detect.posterior import (
    calibrate_context,
    is_graded,
    posterior_log_odds,
    ranking_scores,
    with_scores,
)
from service.core.detect.standardize import PopulationUnits
from service.core.detect.wide_batch import is_wide, usual_images
from service.core.types import BoolArray, EstimatorName, Float64Array

# Images of a graded batch that are outliers with this probability take no part in its context, but no more of them than
# outliers are expected: what is normal may have a small part of its own, all of whose images are a little likely.
PROBABLE = 0.15
# Of a few, which no more than regularise the moments, fewer can be spared: the others would look tight without them.
PROBABLE_OF_FEW = 0.4
# A group that is more surely misfits than this is not called one of several kinds.
CLEARLY_MISFITS = 0.95


def fit_batch(
    latents: NDArray[np.floating],
    native: BoolArray,
    units: PopulationUnits,
    estimator: EstimatorName,
    kinds: Group | None,
    error: NDArray[np.floating] | None = None,
) -> tuple[Context, BoolArray, Float64Array]:
    """Return the context of a batch, the images (n,) that it was fitted to, and what ranks all images (n,).

    latents (n, 2, L); native (n,) the images that are not foreign; kinds by `find_batch_kinds`; error (n,) by which
    foreign images are told
    """
    points = units.points(latents)
    members = usual_images(native, error)
    # In a wide batch a kind of images is as common in the population, and no misfit.
    if not is_wide(latents[members], units):
        members = native & ~_clear_misfits(latents, native, kinds, units)
    context = fit(latents[members], units.population, estimator=estimator, source="batch")
    left_out = float((native & ~members).sum())
    if units.population.graded and context.calibration is not None:
        first = _outlier_probability(points, members, context, units)
        limit = PROBABLE_OF_FEW if members.sum() <= 2 * units.live.size else PROBABLE
        likely = max(limit, _probability_of_last(first[members]))
        probable = members & (first >= likely) & (first > np.median(first[members]))
        if probable.any():
            members, left_out = members & ~probable, left_out + float(first[probable].sum())
            context = fit(latents[members], units.population, estimator=estimator, source="batch")
    scores = _ranking_scores(points, members, context, units)
    if context.calibration is not None and not units.population.graded:
        misfits = _common_misfits(points, scores, members, context, units)
        if misfits.any():
            members, left_out = members & ~misfits, left_out + float(misfits.sum())
            context = fit(latents[members], units.population, estimator=estimator, source="batch")
            scores = _ranking_scores(points, members, context, units)
    is_partial = bool((members != native).any())
    if is_partial and context.calibration is not None and is_graded(estimator_of(context), units):
        # Whether outliers are masked shows in the scores of all images, also of those that were left out.
        context = calibrate_context(with_scores(context, points[native], units), units)
    else:
        context = _with_share(context, int(members.sum()), int(native.sum()), left_out)
    return context, members, scores


def find_batch_kinds(latents: NDArray[np.floating], native: BoolArray, units: PopulationUnits) -> Group | None:
    """Return the smallest of the kinds of a batch's `native` images (n,), or None where it has but one.

    latents (n, 2, L); the group's members are rows of the native ones
    """
    if native.sum() < FEWEST_TO_SPLIT:
        return None
    return find_kinds(*_native_points(latents, native, units), units.draws)


def _native_points(
    latents: NDArray[np.floating], native: BoolArray, units: PopulationUnits
) -> tuple[Float64Array, Float64Array]:
    """Return the points (m, d) of the `native` ones (n,) of latents (n, 2, L), and the encoder's noise (d,) on them."""
    own = latents[native]
    return units.points(own), noise_floor(np.exp(np.clip(own[:, 1].astype(np.float64), -50, 50)).mean(axis=0), units)


def _clear_misfits(
    latents: NDArray[np.floating], native: BoolArray, kinds: Group | None, units: PopulationUnits
) -> BoolArray:
    """Return the images (n,) of a kind that is too rare to be one of two: it takes no part in the context.

    A third of a batch that shares its cause would otherwise pass for a part of what is normal. If the rest is of two
    kinds as well, nothing is clear.
    """
    misfits = np.zeros(len(latents), dtype=bool)
    if kinds is not None and _is_clear(kinds, *_native_points(latents, native, units), units.draws):
        misfits[np.flatnonzero(native)[kinds.members]] = True
    return misfits


def _common_misfits(
    points: Float64Array, scores: Float64Array, members: BoolArray, context: Context, units: PopulationUnits
) -> BoolArray:
    """Return the members of a context (n,) that rank highest and are alike, if they are clearly misfits."""
    misfits = np.zeros(len(points), dtype=bool)
    rows = np.flatnonzero(members)
    floor = noise_floor(context.posterior_variance, units)
    group = find_common_cause(points[rows], scores[rows], floor)
    if group is not None and _is_clear(group, points[rows], floor, units.draws):
        misfits[rows[group.members]] = True
    return misfits


def _is_clear(group: Group, points: Float64Array, floor: Float64Array, population: Float64Array) -> bool:
    """Return whether a group of points (n, d) is more probably misfits than not, and lies beside one kind."""
    if group.are_misfits <= 0.5 or group.kinds > 2:
        return False
    return find_kinds(np.delete(points, group.members, axis=0), floor, population, is_rest=True) is None


def _ranking_scores(points: Float64Array, members: BoolArray, context: Context, units: PopulationUnits) -> Float64Array:
    """Return what ranks points (n, d), of which `members` (n,) were just fitted."""
    if context.scores is not None and members.all():
        return context.scores  # the calibration has them already
    return ranking_scores(estimator_of(context), points, context, units, members)


def _outlier_probability(
    points: Float64Array, members: BoolArray, context: Context, units: PopulationUnits
) -> Float64Array:
    """Return the probability (n,) that each of points (n, d), of which `members` (n,) were fitted, is an outlier."""
    scores = context.scores
    if scores is None or not members.all():
        scores = ranking_scores(estimator_of(context), points, context, units, np.ones(len(points), dtype=bool))
    return np.asarray(expit(posterior_log_odds(scores, points, context, units)))


def _probability_of_last(probability: Float64Array) -> float:
    """Return the least outlier probability among the likeliest outliers, of which there are as many as expected.

    probability (n,) of all images; their sum is the expected number of outliers
    """
    expected = int(np.ceil(probability.sum()))
    return float(np.sort(probability)[-max(expected, 1)]) if len(probability) else 1.0


def _with_share(context: Context, members: int, native: int, left_out: float) -> Context:
    """Return the context with a share of outliers among all `native` images: `left_out` of those that are no members
    are outliers.
    """
    if context.calibration is None or members == native:
        return context
    share = (left_out + context.calibration.share * members) / native
    return replace(context, calibration=replace(context.calibration, share=float(share)))
