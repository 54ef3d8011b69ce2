"""Calibrated probabilities: what the scores of a context's images say about which of them are outliers.

Two groups make up a batch (Efron 2008). The scores of normal images follow location + scale * F(SHAPE, nu): squared
distances to a Gaussian do so with nu infinite, those of Student's t with its own nu. The scores of outliers follow
those of the model's population, which are measured: its sample is scored in the same context. How heavy the normal
tail is and how many outliers there are cannot be told apart with certainty, least of all in a small batch. Therefore no
pair (nu, share) is chosen: all pairs of a grid are weighed by their likelihood (Bayesian model averaging, Hoeting et
al. 1999).

A score is any number that ranks images: log odds, or half a squared distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, logit

from service.core.distributions import f_cdf, f_ppf, median
from service.core.types import Float64Array, IndexArray

# Fewer scores than this tell nothing about their distribution. Of more than MOST, evenly spaced ones are used.
FEWEST, MOST = 4, 2_000
# The numerator's degrees of freedom: the skewness of normal scores, which hardly depends on the number of latents.
SHAPE = 6.0
# Tails of the normal scores and their prior. The heavy ones are natural variation; images of a rule have light ones.
TAILS, TAIL_PRIOR = np.array([3.0, 6.0, 12.0, 40.0, 1e4]), np.array([0.2, 0.2, 0.2, 0.22, 0.18])
# A tail's prior is multiplied by (OVERLAP * spread / distance of the population) ** power. A population a hundred
# spreads away shows that the images obey a rule. The ratio is at most LARGEST_OVERLAP.
OVERLAP, LARGEST_OVERLAP, OVERLAP_POWER = 30.0, 4.0, np.array([1.0, 0.5, 0.0, 0.0, 0.0])
# Shares of outliers and their prior. Most batches have none.
SHARES = np.array([0.003, 0.015, 0.05, 0.12, 0.22, 0.36])
SHARE_PRIOR = np.array([0.35, 0.15, 0.18, 0.14, 0.11, 0.07])
# Location and scale follow from these quantiles of the scores, weighted by the probability that each is normal.
QUANTILES = (0.25, 0.6)
# The lowest scores count by their number only: no outlier is among them, and their exact shape is of no interest.
CENSORED = 0.07
ROUNDS, SETTLED = 8, 0.02
# Below this multiple of the scale a score is as low as any.
LOWEST = 0.05
# The density of the outliers' scores is estimated over the logarithm of their distance: a grid and a bandwidth.
GRID, BANDWIDTH = np.linspace(np.log(LOWEST), 16.0, 160), 0.35
# A share of the density is broad, about the middle between normal scores and the population's, and no lower than
# BROAD_CENTRE: an outlier may differ by one level only, or lie further off than anything in the population.
BROAD_SHARE, BROAD_CENTRE, BROAD_WIDTH = 0.15, np.log(8.0), 1.5
# Where the population is nearer than this many spreads, its scores fade out of the density: they are normal ones.
SEPARATE = 2.0
# Knots of the calibration: quantiles of the scores, the highest of them, and steps to the population's highest.
QUANTILE_KNOTS, HIGHEST_KNOTS, FAR_KNOTS = 32, 16, 16
MOST_KNOTS = QUANTILE_KNOTS + HIGHEST_KNOTS + FAR_KNOTS
LARGEST_RATIO = 60.0

_STEP = GRID[1] - GRID[0]
_REACH = np.arange(-40, 41) * _STEP
_BUMP = np.exp(-0.5 * np.square(_REACH / BANDWIDTH))
_BUMP /= _BUMP.sum() * _STEP
# shares (pairs, bins) @ _SMOOTHING is their convolution with the bump: (bins, bins)
_SMOOTHING = np.stack([np.convolve(bin_, _BUMP, "same") for bin_ in np.eye(len(GRID))])
# All pairs: (pairs,)
_TAIL, _SHARE = (grid.ravel() for grid in np.meshgrid(TAILS, SHARES, indexing="ij"))
_LOG_PRIOR = np.log(np.outer(TAIL_PRIOR, SHARE_PRIOR)).ravel()
_OVERLAP_POWER = np.repeat(OVERLAP_POWER, len(SHARES))
_STANDARD = f_ppf(np.array(QUANTILES), SHAPE, _TAIL[:, None])
_STANDARD_GAP, _QUANTILES = np.ptp(_STANDARD, axis=1), np.array(QUANTILES)[:, None]
_MEDIAN = f_ppf(0.5, SHAPE, _TAIL)[:, None]
_SPREAD = np.diff(f_ppf(np.array([0.25, 0.75]), SHAPE, _TAIL[:, None]))
# What the log density of F(SHAPE, tail) has beside its argument, and the logarithms of the shares: (pairs, 1)
_SLOPE, _POWER = SHAPE / _TAIL[:, None], (SHAPE + _TAIL[:, None]) / 2
_LOG_CONSTANT = SHAPE / 2 * np.log(_SLOPE) - betaln(SHAPE / 2, _TAIL[:, None] / 2)
_SHARE_ODDS, _LOG_SHARE, _LOG_REST = logit(_SHARE)[:, None], np.log(_SHARE)[:, None], np.log1p(-_SHARE)[:, None]
_ROWS = np.arange(len(_TAIL), dtype=np.intp)[:, None] * len(GRID)
# The highest place on GRID, in steps, that has a bin above it.
_LAST_PLACE = np.nextafter(len(GRID) - 1.0, 0.0)
_FAR = np.square(np.linspace(0, 1, FAR_KNOTS + 1)[1:])


@dataclass(frozen=True)
class Calibration:
    """What a score says: piecewise linear, never falling.

    scores    (k,)  knots, in rising order
    evidence  (k,)  log ratio of the densities of outliers and normal images there
    share     the estimated share of outliers among the images that were calibrated with
    """

    scores: Float64Array
    evidence: Float64Array
    share: float

    @property
    def tells_outliers(self) -> bool:
        """Return whether some scores are more evidence of an outlier than others are."""
        return bool(np.ptp(self.evidence))

    def log_odds(self, scores: Float64Array, share: float) -> Float64Array:
        """Return the log posterior odds (n,) of outlier against normal image, where `share` of all are outliers."""
        return np.asarray(np.interp(scores, self.scores, self.evidence) + logit(share))

    def zero(self, share: float) -> float:
        """Return the score whose log posterior odds are 0, or the nearest that is known."""
        return float(np.interp(-logit(share), self.evidence, self.scores))


def calibrate(scores: Float64Array, population: Float64Array, smallest_scale: float) -> Calibration:
    """Calibrate the scores (n,), n >= FEWEST, of a context's images by those (p,) of the population's sample.

    smallest_scale  the spread of scores that the encoder's noise may cause: differences below it mean nothing
    """
    everything, population = np.sort(scores), np.sort(population)
    ordered = everything[:: -(-len(everything) // MOST)]
    # An outlier that scores as normal images do is none. Without them the two groups can be told apart even where the
    # context is as wide as the population.
    outliers, middle = population[population > median(ordered)], median(population)
    normal = np.ones((len(_TAIL), len(ordered)))
    for _ in range(ROUNDS):
        location, scale = _fit_location_scale(ordered, normal, smallest_scale)
        distance = np.maximum((middle - location) / scale - _MEDIAN, 0) / _SPREAD
        outlier_density = _smooth_density(outliers, location, scale)
        log_normal, log_ratio = _densities(ordered, outlier_density, distance, location, scale)
        updated = 1 / (1 + np.exp(np.minimum(log_ratio + _SHARE_ODDS, LARGEST_RATIO)))
        moved = np.abs(updated - normal).max()
        normal = updated
        if moved < SETTLED:
            break
    weights = _weigh(ordered, population, location, scale, log_normal, log_ratio, distance)

    knots = _choose_knots(everything, population)
    log_normal, log_ratio = _densities(knots, outlier_density, distance, location, scale)
    likely = np.log(weights + 1e-300)[:, None] + log_normal
    abnormal = _log_sum(likely + _LOG_SHARE + log_ratio)
    usual = _log_sum(likely + _LOG_REST)
    share = float(weights @ _SHARE)
    return Calibration(knots, np.maximum.accumulate(abnormal - usual) - logit(share), share)


def _fit_location_scale(
    ordered: Float64Array, normal: Float64Array, smallest_scale: float
) -> tuple[Float64Array, Float64Array]:
    """Return location and scale (c, 1) that give the scores (n,) with weights (c, n) the quantiles of F(SHAPE, nu)."""
    weights = normal + 1e-9
    cumulative = weights.cumsum(axis=1)
    positions = (cumulative - 0.5 * weights) / cumulative[:, -1:]
    # np.interp, of all rows at once: (c, 2)
    above = (positions[:, None] <= _QUANTILES).sum(axis=2)
    left, right = np.maximum(above - 1, 0), np.minimum(above, len(ordered) - 1)
    rows = np.arange(len(positions))[:, None]
    before, gap = positions[rows, left], positions[rows, right] - positions[rows, left]
    way = ((_QUANTILES[:, 0] - before) / np.maximum(gap, np.finfo(np.float64).tiny)).clip(0.0, 1.0)
    quantiles = ordered[left] + way * (ordered[right] - ordered[left])
    scale = np.maximum((quantiles[:, 1] - quantiles[:, 0]) / _STANDARD_GAP, smallest_scale)
    return (quantiles[:, 0] - scale * _STANDARD[:, 0])[:, None], scale[:, None]


def _log_sum(logs: Float64Array) -> Float64Array:
    """Return the logarithm (n,) of the sums over c of numbers whose logarithms are `logs` (c, n)."""
    largest = logs.max(axis=0)
    return np.asarray(largest + np.log(np.exp(logs - largest).sum(axis=0)))


def _smooth_density(outliers: Float64Array, location: Float64Array, scale: Float64Array) -> Float64Array:
    """Return the density (c, bins) on GRID of the scores (m,) of outliers, by location and scale (c, 1)."""
    height = (outliers - location) / scale
    np.log(np.maximum(height, LOWEST, out=height), out=height)
    bins, near = _find_bins(height)
    # The bins of all pairs in one count. A score counts for two bins, the more the nearer it is.
    bins, size, shape = bins.ravel(), _ROWS.size * len(GRID), (len(_ROWS), len(GRID))
    next_counts = np.bincount(bins, near.ravel(), size).reshape(shape)
    counts = np.bincount(bins, minlength=size).reshape(shape) - next_counts
    counts[:, 1:] += next_counts[:, :-1]
    return np.asarray(counts @ _SMOOTHING / max(len(outliers), 1))


def _densities(
    scores: Float64Array,
    outlier_density: Float64Array,
    distance: Float64Array,
    location: Float64Array,
    scale: Float64Array,
) -> tuple[Float64Array, Float64Array]:
    """Return the log density (c, n) of normal scores, and the log ratio of the outliers' to it, which never falls.

    scores (n,) in rising order, outlier_density (c, bins) by `_smooth_density`, location and scale (c, 1); distance
    (c, 1) is that of the population's median from the normal one, in spreads
    """
    standard = np.maximum((scores - location) / scale, LOWEST)
    height = np.log(standard)
    # Log densities of the logarithm of a score: their ratio is that of the scores.
    log_normal = _LOG_CONSTANT + SHAPE / 2 * height - _POWER * np.log1p(_SLOPE * standard)
    smooth, (bins, near) = outlier_density.ravel(), _find_bins(height)
    density = smooth[bins]
    density += near * (smooth[bins + 1] - density)
    centre = np.maximum(BROAD_CENTRE, 0.5 * np.log(np.maximum(_MEDIAN + _SPREAD * distance, LOWEST)))
    # A Cauchy density, as scipy.stats computes it.
    broad = 1 / (np.pi * BROAD_WIDTH * (1 + np.square((height - centre) / BROAD_WIDTH)))
    measured = (1 - BROAD_SHARE) * distance**2 / (distance**2 + SEPARATE**2)
    ratio = np.log(measured * density + (1 - measured) * broad) - log_normal
    # Below the mode both densities vanish: a low score is as normal as one at the scale.
    low = standard < 1
    first = np.minimum(low.sum(axis=1), low.shape[1] - 1)
    at_scale = ratio[np.arange(len(ratio)), first][:, None]
    ratio = np.where(low, np.minimum(ratio, at_scale), ratio)
    return log_normal - height - np.log(scale), np.maximum.accumulate(ratio, axis=1)


def _find_bins(height: Float64Array) -> tuple[IndexArray, Float64Array]:
    """Return the bin (c, n) of GRID below each height (c, n), counted over all rows, and how near it is to the next."""
    place = height - GRID[0]
    place /= _STEP
    np.clip(place, 0.0, _LAST_PLACE, out=place)
    bins = place.astype(np.intp)
    place -= bins
    bins += _ROWS
    return bins, place


def _weigh(
    ordered: Float64Array,
    population: Float64Array,
    location: Float64Array,
    scale: Float64Array,
    log_normal: Float64Array,
    log_ratio: Float64Array,
    distance: Float64Array,
) -> Float64Array:
    """Return the posterior weight (c,) of every pair of tail and share, given the scores (n,)."""
    fits = log_normal + np.logaddexp(_LOG_SHARE + log_ratio, _LOG_REST)
    censored = int(CENSORED * len(ordered))
    limit = ordered[censored]
    below = f_cdf((limit - location[:, 0]) / scale[:, 0], SHAPE, _TAIL)
    mass = (1 - _SHARE) * below
    log_weights = (
        fits[:, censored:].sum(axis=1)
        + censored * np.log(np.maximum(mass, np.finfo(np.float64).tiny))
        + _LOG_PRIOR
        + _OVERLAP_POWER * np.log(np.minimum(LARGEST_OVERLAP, OVERLAP / np.maximum(distance[:, 0], 1.0)))
    )
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def _choose_knots(ordered: Float64Array, population: Float64Array) -> Float64Array:
    """Return knots (k,) from the lowest score to the highest, of the images or of the population."""
    highest = ordered[-HIGHEST_KNOTS:]
    last = len(ordered) - 1
    quantiles = np.interp(np.linspace(0, last, QUANTILE_KNOTS), np.arange(last + 1), ordered)
    gap = max(population[-1] - ordered[-1], 0.0)
    far = ordered[-1] + gap * _FAR
    return np.unique(np.concatenate([quantiles, highest, far]))
