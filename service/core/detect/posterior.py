"""The standing of an image in a context: its distance, its log odds of being an outlier, whether it is inside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from service.core.decide.calibration import calibrate
from service.core.detect.context import Context
from service.core.detect.estimators.registry import Estimator, estimator_of
from service.core.detect.gaussian import mahalanobis_squared
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import BoolArray, Float64Array

# The share of outliers before anything is seen.
PRIOR_CONTAMINATION = 0.05
# Misfits that share their cause can pass for normal images. An image of the population passes where its probability of
# being an outlier is below PASSING. Misfits pull the context towards them, and pass more often: the square root. Where
# all pass, this share of the most normal images are outliers; in a small batch more, by a share divided by its size.
PASSING, HIDDEN, HIDDEN_OF_FEW = 0.1, 0.065, 0.5
# Scores of other images than the fitted ones are stretched above this quantile.
LOWER_QUANTILE = 0.25


def mahalanobis(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Return squared distances (n,) of latents (n, 2, L), or of means (n, L), to `context`, over the live latents."""
    units = PopulationUnits.of(population)
    return mahalanobis_squared(units.points(latents), *units.in_units(context))


def log_odds(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Return the log posterior odds (n,) of outlier against inlier of latents (n, 2, L), or of means (n, L)."""
    units = PopulationUnits.of(population)
    points, estimator = units.points(latents), estimator_of(context)
    nobody = np.zeros(len(points), dtype=bool)
    return posterior_log_odds(ranking_scores(estimator, points, context, units, nobody), points, context, units)


def posterior_log_odds(
    scores: Float64Array, points: Float64Array, context: Context, units: PopulationUnits
) -> Float64Array:
    """Return the log posterior odds (n,) of points (n, d) whose `ranking_scores` are `scores` (n,).

    Without a calibration they are the estimator's own, with the prior share of outliers.
    """
    if context.calibration is None:
        estimator = estimator_of(context)
        odds = scores if estimator.ranks_by_odds else estimator.log_odds(points, context, units)
        return np.asarray(odds + logit(PRIOR_CONTAMINATION))
    return context.calibration.log_odds(scores, share_of_outliers(context))


def share_of_outliers(context: Context) -> float:
    """Return the share of outliers among the images that are scored: in a batch its own, otherwise the prior's."""
    if context.source == "batch" and context.calibration is not None:
        return context.calibration.share
    return PRIOR_CONTAMINATION


def recognised_share(context: Context) -> float:
    """Return the share of the population's sample that a calibrated `context` of a batch flags: its flags' power.

    What the batch varies in hides misfits: of images that are no part of it, so many are told from those that are.
    """
    return float((_population_odds(context) > 0).mean())


def least_probability(context: Context) -> float:
    """Return how probably the most normal image of a calibrated `context` of a batch is an outlier all the same.

    Misfits hide where many images pass for normal ones, and no score shows it.
    """
    passing = float((_population_odds(context) < logit(PASSING)).mean())
    return (HIDDEN + HIDDEN_OF_FEW / context.size) * float(np.sqrt(passing))


def _population_odds(context: Context) -> Float64Array:
    assert context.calibration is not None
    assert context.population_scores is not None
    return context.calibration.log_odds(context.population_scores, share_of_outliers(context))


def hidden_share(context: Context) -> float:
    """Return the share of outliers among the images of a calibrated `context` that score as the most normal ones do."""
    assert context.calibration is not None
    return float(expit(context.calibration.evidence[0] + logit(share_of_outliers(context))))


def ranking_scores(
    estimator: Estimator, points: Float64Array, context: Context, units: PopulationUnits, members: BoolArray
) -> Float64Array:
    """Return what ranks points (n, d): log odds, or squared distances where the estimator ranks by them.

    members  (n,)  the points that `context` was fitted to
    """
    if estimator.ranks_by_odds:
        return estimator.log_odds(points, context, units)
    return estimator.distances(points, context, units, members)


def calibrate_context(context: Context, units: PopulationUnits) -> Context:
    """Return `context` with a calibration of its scores (n,), n >= `calibration.FEWEST`, on one axis or more."""
    estimator, own, population = estimator_of(context), context.scores, context.population_scores
    assert own is not None
    assert population is not None
    scores = own if context.source == "batch" else _stretch(own, units.live.size)
    if is_graded(estimator, units):
        from service.core.decide.graded_calibration import calibrate_graded  # imports scipy.interpolate

        is_batch = context.source == "batch"
        calibration = calibrate_graded(scores, population, estimator.smallest_scale, is_batch=is_batch)
    else:
        calibration = calibrate(scores, population, estimator.smallest_scale)
    return replace(context, calibration=calibration, contamination=calibration.share)


def _stretch(scores: Float64Array, axes: int) -> Float64Array:
    """Return the scores (n,) of a reference on so many axes, as those of other images.

    These will be scored, and lie further off than those that the moments were fitted to.
    """
    lower = np.quantile(scores, LOWER_QUANTILE)
    return np.asarray(lower + (scores - lower) * (1 + axes / len(scores)))


def is_graded(estimator: Estimator, units: PopulationUnits) -> bool:
    """Return whether scores are calibrated by their reach, whose distribution is known, rather than by their tail."""
    return units.population.graded and estimator.saturates


def with_scores(context: Context, points: Float64Array, units: PopulationUnits) -> Context:
    """Return `context` with the scores of points (n, d), those that it was fitted to or all of its batch, and of some
    of the population.
    """
    estimator, population = estimator_of(context), units.draws
    if estimator.ranks_by_odds:  # what does not depend on the points is then computed once
        odds = estimator.log_odds(np.concatenate([points, population]), context, units)
        return replace(context, scores=odds[: len(points)], population_scores=odds[len(points) :])
    everybody, nobody = np.ones(len(points), dtype=bool), np.zeros(len(population), dtype=bool)
    return replace(
        context,
        scores=estimator.distances(points, context, units, everybody),
        population_scores=estimator.distances(population, context, units, nobody),
    )


def inside(latents: NDArray[np.floating], context: Context, population: Population) -> BoolArray:
    """Return which latents (n, 2, L), or means (n, L), lie among the normal images: within the radius, with odds at
    most 1.
    """
    near = mahalanobis(latents, context, population) <= context.radius_squared
    return near & (log_odds(latents, context, population) <= 0)
