"""Calibrated probabilities where images vary gradually, as photographs do.

Nothing separates normal photographs from unusual ones, so that the tail of a batch's scores cannot say alone which are
outliers. A density ratio has a scale of its own, however: it hardly grows beyond the score of a typical stranger. The
reach of a score is its place on the way from the batch's median, 0, to the median of the strangers, 1: images of the
population that score above the batch's median. How far strangers reach is measured in every context.

How far normal photographs reach was measured once, on batches of hand signs, CIFAR-10 and written digits. Collections
differ in it, but by one number: the logarithms of the shares beyond every place are some multiple of the table's, which
is the tail of a batch. No tail, and no share of outliers, is chosen: all are weighed by their likelihood. The tail's
likelihood is raised to a power below 1, since the family is only about right (a coarsened posterior, Miller & Dunson
2019).

Many outliers of one kind pass for a part of what is normal: they are masked, and score as normal images do. No score
tells a batch of masked outliers from a clean one. So its images keep the share of outliers that such batches have.

Scores above 0 count by their logarithm: where kinds lie far apart, a stranger is one at odds of e^20 as of e^200.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import logit

from service.core.decide.calibration import LARGEST_RATIO, MOST, SHARES, Calibration
from service.core.types import Float64Array

# The share of normal photographs that reach further than each place.
PLACES = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 3.0])
BEYOND = np.array(
    [0.5, 0.396, 0.318, 0.258, 0.203, 0.150, 0.098, 0.0595, 0.0335, 0.0152, 0.0045, 0.0013, 3e-4, 3e-5, 1e-6]
)
# Who sends photographs looks for something: any share of outliers is as likely as any other.
SHARE_PRIOR = np.full(len(SHARES), 1 / len(SHARES))
# The probability that outliers are masked, by their share: measured on batches with outliers of one kind.
MASKED = np.array([0.0, 0.0, 0.0, 0.03, 0.1, 0.5])
# Tails: the powers of the table's shares that are tried. A low one is a heavy tail.
TAILS = np.array([0.7, 1.0, 1.8])
# In a batch of n images the powers are divided by 1 + FEW / n: few say less of what is normal, and normal ones reach
# further, as the squared distance of one more image to the Gaussian of n images is larger by a share like 1 / n.
FEW = 6.0
# The family of tails is so far from right that more images than about this many do not tell more about the tail.
COARSENESS = 10.0
GRID = np.linspace(PLACES[0], PLACES[-1], 61)  # at most `calibration.MOST_KNOTS`
# The strangers' density: its bandwidth, and the share of it that is spread over all places.
BANDWIDTH, SPREAD_SHARE = 0.12, 0.05
# Several outliers of one kind vouch for each other, and reach less far than a single stranger does.
VOUCHED = (0.8, 1.0)

# Up to this share of the population above a batch's median nothing is known of strangers, from the second on all is.
# Where the population is of two kinds, three quarters lie above the median of a batch of one: the other, half of it.
FEW_STRANGERS, MANY_STRANGERS = 0.70, 0.75
# Decimals of log odds.
DECIMALS = 9
# Scores well above this many nats count by their logarithm.
COMPRESSED = 2.0

_STEP = GRID[1] - GRID[0]
_BEYOND = PchipInterpolator(PLACES, np.log(BEYOND))
# Of normal photographs on GRID: the log of the share beyond, of all above the median, and the log density by the table.
_LOG_BEYOND = _BEYOND(GRID) - _BEYOND(PLACES[0])
_LOG_NORMAL = _BEYOND(GRID) + np.log(np.maximum(-_BEYOND.derivative()(GRID), 1e-3))
_BUMP = np.exp(-0.5 * np.square(np.arange(-10, 11) * _STEP / BANDWIDTH))
_LOG_SHARES = np.log(SHARES)[:, None], np.log1p(-SHARES)[:, None]


def calibrate_graded(
    scores: Float64Array, population: Float64Array, smallest_scale: float, is_batch: bool = True
) -> Calibration:
    """Calibrate the scores (n,) of a context's images by those (p,) of the population's sample.

    smallest_scale  the spread of scores that the encoder's noise may cause: differences below it mean nothing
    is_batch        the images are those that are scored: outliers among them may pass for normal ones. Those of a
                    reference set do not, and its scores say already how far other images reach
    """
    compressed, population = np.sort(_compress(scores)), _compress(population)
    median, way, strangers = _find_way(compressed, population, smallest_scale)
    tails = log_tails(len(compressed) if is_batch else np.inf)
    evidence = compare((strangers - median) / way, tails)
    # Half of the population scores above the median of a batch that is as wide as itself: it shows no strangers.
    share_of_strangers = len(strangers) / max(len(population), 1)
    evidence *= np.clip((share_of_strangers - FEW_STRANGERS) / (MANY_STRANGERS - FEW_STRANGERS), 0, 1)

    reaches = (compressed[:: -(-len(compressed) // MOST)] - median) / way
    seen, masked = _weigh(reaches, evidence, tails, MASKED if is_batch else np.zeros_like(MASKED))
    share = float((seen + masked).sum(axis=0) @ SHARES)
    # Sums over all tails of what each of them says, (tails, 61) and (tails, 1).
    by_evidence, by_share = (np.log(weights @ SHARES + 1e-300)[:, None] for weights in (seen, masked))
    abnormal = np.logaddexp.reduce(tails + np.logaddexp(by_evidence + evidence, by_share), axis=0)
    rest = np.log((seen + masked) @ (1 - SHARES) + 1e-300)[:, None]
    usual = np.logaddexp.reduce(tails + rest, axis=0)
    # Rounded: where nothing is known of strangers, the odds are the same everywhere.
    odds = np.round(np.maximum.accumulate(abnormal - usual), DECIMALS)
    return Calibration(_expand(median + way * GRID), odds - logit(share), share)


def log_tails(images: float) -> Float64Array:
    """Return what each tail adds to the table's log density on GRID in a batch of so many images, (tails, 61)."""
    powers = TAILS[:, None] / (1 + FEW / images)
    return np.asarray(np.log(powers) + (powers - 1) * _LOG_BEYOND)


def compare(strangers: Float64Array, tails: Float64Array) -> Float64Array:
    """Return the log ratio (tails, 61) of the densities of outliers and of normal images on GRID, which never falls.

    strangers (s,) how far they reach, tails (tails, 61) as by `log_tails`
    """
    reach = np.concatenate([strangers * shrunk for shrunk in VOUCHED])
    counts = np.histogram(reach, bins=np.append(GRID - _STEP / 2, np.inf))[0]
    density = np.convolve(counts, _BUMP, "same")
    density = (1 - SPREAD_SHARE) * density / max(density.sum(), 1.0) / _STEP + SPREAD_SHARE / (GRID[-1] - GRID[0])
    ratio = np.maximum.accumulate(np.log(density) - _LOG_NORMAL - tails, axis=1)
    return np.asarray(np.clip(ratio, -LARGEST_RATIO, LARGEST_RATIO))


def _weigh(
    reaches: Float64Array, evidence: Float64Array, tails: Float64Array, masked: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Return the posterior weight of every tail and share, (tails, shares), with outliers that are seen, and masked.

    reaches (n,) of the images, evidence and tails (tails, 61), masked (shares,) the probability that outliers are
    """
    above = reaches[reaches > 0]
    log_shares, log_rest = _LOG_SHARES
    by_seen, by_masked = np.empty((len(TAILS), len(SHARES))), np.empty((len(TAILS), len(SHARES)))
    for tail, (ratio, normal) in enumerate(zip(evidence, tails, strict=True)):
        fits = np.interp(above, GRID, normal).sum()
        # Below the median the shape of the scores is of no interest.
        low = (len(reaches) - len(above)) * np.logaddexp(log_shares + ratio[0], log_rest)[:, 0]
        by_seen[tail] = fits + low + np.logaddexp(log_shares + np.interp(above, GRID, ratio), log_rest).sum(axis=1)
        by_masked[tail] = fits
    with np.errstate(divide="ignore"):
        weights = np.stack([by_seen + np.log(1 - masked), by_masked + np.log(masked)]) + np.log(SHARE_PRIOR)
    of_tails = np.logaddexp.reduce(np.logaddexp(*weights), axis=1)[:, None]
    weights = np.exp(weights - of_tails)
    coarse = of_tails / (1 + len(reaches) / COARSENESS)
    weights *= np.exp(coarse - coarse.max())
    weights /= weights.sum()
    return weights[0], weights[1]


def find_reaches(
    scores: Float64Array, population: Float64Array, smallest_scale: float
) -> tuple[Float64Array, Float64Array]:
    """Return how far the scores (n,) of a context's images reach, (n,): what BEYOND is a table of. And the evidence
    there, (tails, n): the log ratio of the densities of outliers, if they are seen, and of normal images.
    """
    compressed = _compress(scores)
    median, way, strangers = _find_way(compressed, _compress(population), smallest_scale)
    reaches, evidence = (compressed - median) / way, compare((strangers - median) / way, log_tails(len(scores)))
    return reaches, np.array([np.interp(reaches, GRID, ratio) for ratio in evidence])


def tail_power(reaches: Float64Array) -> float:
    """Return the power of the table's shares under which reaches (n,) above 0 are likeliest: what TAILS are."""
    above = reaches[reaches > 0]
    return float(-len(above) / np.interp(above, GRID, _LOG_BEYOND).sum())


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
