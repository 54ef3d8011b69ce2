"""Calibrated probabilities where images vary gradually, as photographs do.

Nothing separates normal photographs from unusual ones, so that the tail of a batch's scores cannot say which are
outliers. A density ratio has a scale of its own, however: it hardly grows beyond the score of a typical stranger. The
reach of a score is its place on the way from the batch's median, 0, to the median of the strangers, 1: images of the
population that score above the batch's median. How far normal photographs reach was measured, once, on clean batches of
two collections (hand signs and CIFAR-10, half and half). How far strangers reach is measured in every context.

Scores above 0 count by their logarithm: where kinds lie far apart, a stranger is one at odds of e^20 as of e^200.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import logit

from service.core.decide.calibration import LARGEST_RATIO, SHARES, Calibration
from service.core.types import Float64Array

# The share of normal photographs that reach further than each place.
PLACES = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 3.0])
BEYOND = np.array(
    [0.5, 0.333, 0.229, 0.159, 0.114, 0.085, 0.061, 0.039, 0.022, 0.0102, 0.0043, 0.0016, 3e-4, 3e-5, 1e-6]
)
# Who sends photographs looks for something: batches with outliers are as likely as not.
SHARE_PRIOR = np.array([0.12, 0.15, 0.25, 0.22, 0.15, 0.11])
GRID = np.linspace(PLACES[0], PLACES[-1], 61)  # at most `calibration.MOST_KNOTS`
# The strangers' density: its bandwidth, and the share of it that is spread over all places.
BANDWIDTH, SPREAD_SHARE = 0.12, 0.05
# Several outliers of one kind vouch for each other, and reach less far than a single stranger does.
VOUCHED = (0.6, 0.8, 1.0)

# Up to this share of the population above a batch's median nothing is known of strangers, from the second on all is.
FEW_STRANGERS, MANY_STRANGERS = 0.6, 0.72
# Scores well above this many nats count by their logarithm.
COMPRESSED = 2.0

_STEP = GRID[1] - GRID[0]
_TAIL = PchipInterpolator(PLACES, np.log(BEYOND))
_LOG_NORMAL = _TAIL(GRID) + np.log(np.maximum(-_TAIL.derivative()(GRID), 1e-3))
_BUMP = np.exp(-0.5 * np.square(np.arange(-10, 11) * _STEP / BANDWIDTH))


def calibrate_graded(scores: Float64Array, population: Float64Array, smallest_scale: float) -> Calibration:
    """Calibrate the scores (n,) of a context's images by those (p,) of the population's sample.

    smallest_scale  the spread of scores that the encoder's noise may cause: differences below it mean nothing
    """
    compressed, population = _compress(scores), _compress(population)
    median, way, strangers = _find_way(compressed, population, smallest_scale)
    reach = np.concatenate([(strangers - median) / way * shrunk for shrunk in VOUCHED])
    counts = np.histogram(reach, bins=np.append(GRID - _STEP / 2, np.inf))[0]
    density = np.convolve(counts, _BUMP, "same")
    density = (1 - SPREAD_SHARE) * density / max(density.sum(), 1.0) / _STEP + SPREAD_SHARE / (GRID[-1] - GRID[0])
    evidence = np.clip(np.maximum.accumulate(np.log(density) - _LOG_NORMAL), -LARGEST_RATIO, LARGEST_RATIO)
    # Half of the population scores above the median of a batch that is as wide as itself: it shows no strangers.
    share_of_strangers = len(strangers) / max(len(population), 1)
    evidence *= np.clip((share_of_strangers - FEW_STRANGERS) / (MANY_STRANGERS - FEW_STRANGERS), 0, 1)

    # The share of outliers is not estimated but averaged over, as in `calibration`.
    of_scores = np.interp((compressed - median) / way, GRID, evidence)
    likely = np.logaddexp(np.log(SHARES)[:, None] + of_scores, np.log1p(-SHARES)[:, None]).sum(axis=1)
    weights = np.log(SHARE_PRIOR) + likely
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    abnormal = np.logaddexp.reduce(np.log(weights * SHARES + 1e-300)[:, None] + evidence, axis=0)
    usual = np.log(weights @ (1 - SHARES))
    share = float(weights @ SHARES)
    return Calibration(_expand(median + way * GRID), abnormal - usual - logit(share), share)


def find_reaches(scores: Float64Array, population: Float64Array, smallest_scale: float) -> Float64Array:
    """Return how far the scores (n,) of a context's images reach, (n,): what BEYOND is a table of."""
    compressed = _compress(scores)
    median, way, _ = _find_way(compressed, _compress(population), smallest_scale)
    return (compressed - median) / way


def _find_way(
    scores: Float64Array, population: Float64Array, smallest_scale: float
) -> tuple[float, float, Float64Array]:
    """Return the median of compressed scores (n,), how far it is from there to the median of the strangers, and their
    scores: those of the population (p,) above the batch's median.
    """
    median = float(np.median(scores))
    strangers = population[population > median]
    typical = float(np.median(strangers)) if len(strangers) else median
    return median, max(typical - median, smallest_scale), strangers


def _compress(scores: Float64Array) -> Float64Array:
    return np.asarray(np.where(scores > 0, COMPRESSED * np.log1p(np.maximum(scores, 0) / COMPRESSED), scores))


def _expand(compressed: Float64Array) -> Float64Array:
    return np.asarray(
        np.where(compressed > 0, COMPRESSED * np.expm1(np.maximum(compressed, 0) / COMPRESSED), compressed)
    )
