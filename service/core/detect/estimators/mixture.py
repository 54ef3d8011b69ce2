"""The estimator `mixture`: a contaminated normal, (1 - eps) N(location, covariance) + eps N(population).

The population is broad. An image is an inlier where it lies in the directions that the context narrows; every other
direction must say nothing. Plain EM does not decide two questions:

- Which directions are narrow? A spike-and-slab prior decides: a direction either follows the population, or has a
  mean and a variance of its own and pays for them (Laplace's approximation of the evidence). Without it, twenty images
  in ten dimensions would explain noise.
- Which mode? A free hue is a ring of ten clumps, and EM settles on the one that it starts near. EM therefore starts
  from the whole batch and from the densest stretches of every axis. The evidence selects among the results, with a
  prior that prefers the least contamination that explains the batch.

The evidence is no exact likelihood: priors shrink variances, correlations fall back on the axes with few inliers, and
the share of outliers is a mean, not a mode. One step may therefore lower it by some nats. The best iterate counts, so
that more iterations never lower what is returned.

Inside, points (n, d) are whitened by the population's Cholesky factor: the population becomes N(0, I). Each axis then
holds only what the axes before it do not tell, so that two latents that follow one factor count once. An axis that the
others all but determine is dead, like a latent that never varies: a small shift of the whole batch (another camera,
another renderer) would be many of its deviations. A responsibility r is an image's posterior probability of being an
inlier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from service.core.detect.gaussian import Fit, log_density, solve_lower
from service.core.types import Float64Array

# Prior of eps: Beta(OUTLIERS, INLIERS + RELUCTANCE * n). The term that grows with n discourages small tight modes.
OUTLIERS, INLIERS, RELUCTANCE = 1.0, 1.0, 2.0
# Prior of a narrow axis' variance, worth NARROW_WEIGHT images; it may lie anywhere within exp(LOG_RANGE).
NARROW_WEIGHT, NARROW_VARIANCE, LOG_RANGE = 1.0, 0.02, 4.0
# Correlations of m inliers on d axes have weight 1/2 at m = CORRELATION_WEIGHT * d, and almost 1 soon above it.
CORRELATION_WEIGHT = 2.0
# An axis is dead where the axes before it leave over less than this share of its variance.
REDUNDANT = 0.05
# Points are clipped at this many population standard deviations.
CLIP = 5.0
# The search uses at most this many images; the last fit uses all.
SEARCH_SIZE = 400
START_SHARES = (0.3, 0.5, 0.8)
# Iterations from all starts, from the survivors, and of the fit with correlations.
SHORT_RUN, LONG_RUN, REFINEMENTS = 6, 20, 30
# Starts that survive the short run; modes that are fitted with correlations. The whole batch's comes in addition.
SURVIVORS, CANDIDATES = 8, 4
# Modes whose responsibilities differ by less than this on average are one; EM stops where none moves further.
SAME_MODE = 0.01
SMALLEST_RATIO = 1e-9
TOLERANCE = 1e-3
# Responsibilities that move by less have settled: more steps would change their last digits.
SETTLED = 1e-12

_LOG_VOLUME = math.log(LOG_RANGE) - 0.5 * math.log(math.pi)


@dataclass(frozen=True)
class _Mode:
    """A result of EM: the inliers' moments in whitened points, the share of outliers, and the evidence for them."""

    location: Float64Array
    covariance: Float64Array
    contamination: float
    evidence: float


def fit_mixture(points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
    """Fit the inliers' moments of points (n, d) in population units, n >= 3, d >= 1."""
    factor = background.factor
    white = solve_lower(factor, np.clip(points, -CLIP, CLIP).T).T
    noise = solve_lower(factor, np.diag(np.sqrt(floor)))
    noise = noise @ noise.T
    own = np.flatnonzero(np.square(factor.diagonal()) >= REDUNDANT)
    square = np.ix_(own, own)
    white, noise = white[:, own], noise[square]
    sample = white[:: -(-len(white) // SEARCH_SIZE)]
    best = refine(sample, noise, search(sample, noise.diagonal()))
    if len(sample) < len(white):
        best = refine(white, noise, _responsibilities(white, best)[None])
    location, covariance = np.zeros(len(factor)), np.eye(len(factor))
    location[own], covariance[square] = best.location, best.covariance
    return Fit(factor @ location, factor @ covariance @ factor.T)


def search(points: Float64Array, noise: Float64Array) -> Float64Array:
    """Return responsibilities (m, n) of the whole batch's mode and of the best modes that differ from it."""
    responsibilities, evidence = fit_axes(points, noise, starts(points), SHORT_RUN)
    survivors = _distinct(responsibilities, evidence, SURVIVORS)
    responsibilities, evidence = fit_axes(points, noise, responsibilities[survivors], LONG_RUN)
    return responsibilities[_distinct(responsibilities, evidence, CANDIDATES)]


def starts(points: Float64Array) -> Float64Array:
    """Return responsibilities (s, n) to start from: all points, and each axis' shortest stretches that hold a share."""
    n, d = points.shape
    order, axes = points.argsort(axis=0, kind="stable"), np.arange(d)
    ordered = points[order, axes]
    responsibilities = [np.ones((1, n))]
    for share in START_SHARES:
        count = math.ceil(share * n)
        first = (ordered[count - 1 :] - ordered[: n - count + 1]).argmin(axis=0)
        inside = np.zeros((d, n))
        inside[axes, order[first + np.arange(count)[:, None], axes]] = 1.0
        responsibilities.append(inside)
    return np.concatenate(responsibilities)


def _distinct(responsibilities: Float64Array, evidence: Float64Array, most: int) -> list[int]:
    """Return the first mode and up to `most` others by evidence, each different from all before."""
    selected, nearest = [0], _distances(responsibilities, 0)
    for mode in np.argsort(-evidence, kind="stable").tolist():
        if len(selected) > most:
            break
        if nearest[mode] > SAME_MODE:
            selected.append(mode)
            nearest = np.minimum(nearest, _distances(responsibilities, mode))
    return selected


def _distances(responsibilities: Float64Array, mode: int) -> Float64Array:
    """Return how much responsibilities (s, n) differ from those of one mode, on average over the points, (s,)."""
    gaps = np.abs(responsibilities - responsibilities[mode])
    return np.asarray(gaps.sum(axis=1) / gaps.shape[1])


def fit_axes(
    points: Float64Array, noise: Float64Array, r: Float64Array, iterations: int
) -> tuple[Float64Array, Float64Array]:
    """Run variational EM with independent axes from s starts: return responsibilities (s, n) and evidence (s,).

    They are those of each start's iterate of the largest evidence.
    """
    n, d = points.shape
    # What the density of such a Gaussian depends on, for every axis: x**2, x and 1. Sizes, which are the same on all
    # axes, are computed for each: numpy takes thrice as long for few numbers of different shapes.
    statistics = np.stack([np.square(points), points, np.ones((n, d))])
    by_image, coefficients = np.hstack(list(statistics)).T, np.empty((len(r), 3 * d))
    noise = np.tile(noise, (len(r), 1))
    iterates, terms = [], []
    for _ in range(iterations):
        squares, mean, size = r @ statistics  # (s, d)
        size += 1e-9
        mean /= size
        mean_squared = np.square(mean)
        scatter = np.maximum(squares - size * mean_squared, 0.0)
        variance = _narrow_variance(scatter, size) + noise
        log_variance = np.log(variance)
        gain = 0.5 * (squares - size * log_variance - scatter / variance)
        odds = gain - _price(mean_squared, log_variance, size)
        narrow = expit(odds)
        # sum over axes of narrow * (log N(x; mean, variance) - log N(x; 0, 1))
        share = narrow / variance
        coefficients[:, :d] = 0.5 * (narrow - share)
        coefficients[:, d : 2 * d] = share * mean
        coefficients[:, 2 * d :] = -0.5 * (narrow * log_variance + share * mean_squared)
        log_odds = _log_odds(coefficients @ by_image, size[:, 0], n)
        before, r = r, _probability(log_odds)
        iterates.append(r)
        terms.append((log_odds, size, odds, narrow, gain))
        if np.abs(r - before).max() < SETTLED:  # few images settle soon
            break
    log_odds, *others = map(np.array, zip(*terms, strict=True))
    evidence = _evidence(n, _likelihood(log_odds), *others)
    best = evidence.argmax(axis=0), np.arange(len(r))
    return np.array(iterates)[best], evidence[best]


def refine(points: Float64Array, noise: Float64Array, r: Float64Array) -> _Mode:
    """Run EM with correlations from m modes' responsibilities r (m, n), over the inliers' principal directions.

    A direction that is not narrow takes the population's moments, so that it says nothing. Return the iterate of the
    largest evidence, of all modes. All modes take each step at once, until they settle, and most of the evidence is
    computed at the end: of few images, a step costs its calls rather than its sums. Of many, the log odds of every step
    would take memory. noise (d, d).
    """
    n, d = points.shape
    axes, own_noise, ones = np.eye(d), noise.diagonal().copy(), np.ones((n, d))
    iterates, terms = [], []
    for _ in range(REFINEMENTS):
        mean, size = r @ points, r @ ones  # (m, d), the size the same on all axes
        mean /= size
        centred = points - mean[:, None]  # (m, n, d)
        scatter = (centred * r[:, :, None]).transpose(0, 2, 1) @ centred  # (m, d, d)
        own_scatter = scatter.diagonal(axis1=1, axis2=2).copy()
        variance = _narrow_variance(own_scatter, size) + own_noise
        mean_squared, log_variance = np.square(mean), np.log(variance)
        gain = 0.5 * (own_scatter + size * (mean_squared - log_variance) - own_scatter / variance)
        narrow = expit(gain - _price(mean_squared, log_variance, size))
        # With few inliers, the covariance falls back on the axes' own variances.
        weight = 1.0 / (1.0 + np.square(CORRELATION_WEIGHT * d / size))
        free = 1.0 - narrow
        jitter = NARROW_WEIGHT * NARROW_VARIANCE / (size + NARROW_WEIGHT)
        own = weight * jitter + (1.0 - weight) * (narrow * variance + free)
        covariance = weight[:, :, None] * (scatter / size[:, :, None] + noise) + own[:, :, None] * axes
        mean *= narrow + free * weight

        ratio, directions = np.linalg.eigh(covariance)
        ratio = np.minimum(np.maximum(ratio, SMALLEST_RATIO), 1.0)
        log_ratio = np.log(ratio)
        along, centre = points @ directions, (mean[:, None] @ directions)[:, 0]
        squares = np.square(along)
        gaps = squares - np.square(along - centre[:, None]) / ratio[:, None]
        gain = 0.5 * ((r[:, None] @ gaps)[:, 0] - size * log_ratio)
        odds = gain - _price(np.square(centre), log_ratio, size)
        narrow = expit(odds)
        # Narrow and free are averaged by their natural parameters, so that the context stays one Gaussian.
        share = narrow / ratio
        shrunk = 1.0 / (share + 1.0 - narrow)
        centre = shrunk * share * centre
        gaps = squares - np.square(along - centre[:, None]) / shrunk[:, None] - np.log(shrunk)[:, None]
        log_odds = _log_odds(0.5 * gaps.sum(axis=2), size[:, 0], n)
        iterates.append((directions, centre, shrunk, size))
        terms.append((_likelihood(log_odds), size, odds, narrow, gain))
        updated = _probability(log_odds)
        r = updated[np.abs(updated - r).max(axis=1) >= TOLERANCE]
        if not len(r):
            break
    evidence = _evidence(n, *map(np.concatenate, zip(*terms, strict=True)))
    best = int(evidence.argmax())
    basis, centre, shrunk, size = (np.concatenate(parts)[best] for parts in zip(*iterates, strict=True))
    # RELUCTANCE serves the choice of a mode. The share of outliers within it is estimated without it.
    contamination = (n - float(size[0]) + OUTLIERS) / (n + OUTLIERS + INLIERS)
    return _Mode(basis @ centre, basis * shrunk @ basis.T, contamination, float(evidence[best]))


def _narrow_variance(scatter: Float64Array, size: Float64Array) -> Float64Array:
    """Return the posterior mean of the variance of directions (s, d) that are narrow, from their sums of squares."""
    return (scatter + NARROW_WEIGHT * NARROW_VARIANCE) / (size + NARROW_WEIGHT)


def _price(mean_squared: Float64Array, log_variance: Float64Array, size: Float64Array) -> Float64Array:
    """Return the cost in nats of a direction's own mean and variance: log prior volume over posterior volume.

    The mean's prior is the population's N(0, 1), its posterior sd sqrt(variance / size). The log variance's prior is
    flat over LOG_RANGE in the standard deviation, its posterior sd 1 / sqrt(2 size).
    """
    certainty = np.log(np.maximum(size, math.pi)) + _LOG_VOLUME
    return np.asarray(0.5 * (mean_squared - np.minimum(log_variance, 0.0)) + certainty)


def _share(size: Float64Array, n: int) -> Float64Array:
    """Return the posterior mean of eps with `size` inliers among n."""
    return (n + OUTLIERS - size) / (n + OUTLIERS + INLIERS + RELUCTANCE * n)


def _log_odds(log_ratio: Float64Array, size: Float64Array, n: int) -> Float64Array:
    """Return the log odds of inlier (s, n), from log inlier/population ratios (s, n) and sizes (s,)."""
    eps = _share(size, n)
    return log_ratio + np.log(1.0 / eps - 1.0)[:, None]


def _probability(log_odds: Float64Array) -> Float64Array:
    """Return what scipy.special.expit does. numpy computes exponentials of many numbers at once."""
    return np.asarray(1.0 / (1.0 + np.exp(np.minimum(-log_odds, 700.0))))


def _likelihood(log_odds: Float64Array) -> Float64Array:
    """Return the log likelihood ratio (...) of iterates to all being outliers, from the log odds (..., n) of inlier."""
    return np.asarray((np.maximum(log_odds, 0.0) + np.log1p(np.exp(-np.abs(log_odds)))).sum(axis=-1))


def _evidence(
    n: int, likelihood: Float64Array, size: Float64Array, odds: Float64Array, narrow: Float64Array, gain: Float64Array
) -> Float64Array:
    """Return the evidence (...) of iterates: the penalised log likelihood, and what the choice of directions adds.

    likelihood    (...)     by `_likelihood`
    size          (..., d)  the number of inliers, the same on all axes
    odds, narrow  (..., d)  the log odds and the probability that a direction is narrow
    gain          (..., d)  in nats, where it is

    The choice adds its entropy, less the price where a direction is narrow. With odds = gain - price, that is
    log(1 + exp(odds)) - narrow * gain.
    """
    eps = _share(size[..., 0], n)
    prior = (n + OUTLIERS) * np.log(eps) + (INLIERS + RELUCTANCE * n) * np.log1p(-eps)
    return np.asarray(likelihood + prior + (np.logaddexp(0.0, odds) - narrow * gain).sum(axis=-1))


def _responsibilities(points: Float64Array, mode: _Mode) -> Float64Array:
    # The population is N(0, I).
    log_ratio = log_density(points, mode.location, mode.covariance) + 0.5 * np.square(points).sum(axis=1)
    inlier: Float64Array = expit(log_ratio + np.log(1 / mode.contamination - 1))
    return inlier
