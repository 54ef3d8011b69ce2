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

from dataclasses import dataclass

import numpy as np
from scipy.special import entr, expit

from service.core.detect.gaussian import Fit, log_density, solve_lower
from service.core.detect.moments import Moments
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


@dataclass(frozen=True)
class _Mode:
    """A result of EM: the inliers' moments in whitened points, the share of outliers, and the evidence for them."""

    location: Float64Array
    covariance: Float64Array
    contamination: float
    evidence: float


def fit_mixture(points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
    """Fit the inliers' moments of points (n, d) in population units, n >= 3, d >= 1."""
    factor = np.linalg.cholesky(background.covariance)
    white = solve_lower(factor, np.clip(points, -CLIP, CLIP).T).T
    noise = solve_lower(factor, np.diag(np.sqrt(floor)))
    noise = noise @ noise.T
    own = np.flatnonzero(np.square(np.diag(factor)) >= REDUNDANT)
    white, noise = white[:, own], noise[np.ix_(own, own)]
    sample = white[:: -(-len(white) // SEARCH_SIZE)]
    modes = [refine(sample, noise, r) for r in search(sample, np.diag(noise))]
    best = max(modes, key=lambda mode: mode.evidence)
    if len(sample) < len(white):
        best = refine(white, noise, _responsibilities(white, best))
    location, covariance = np.zeros(len(factor)), np.eye(len(factor))
    location[own], covariance[np.ix_(own, own)] = best.location, best.covariance
    return Fit(factor @ location, factor @ covariance @ factor.T)


def search(points: Float64Array, noise: Float64Array) -> list[Float64Array]:
    """Return responsibilities (n,) of the whole batch's mode and of the best modes that differ from it."""
    responsibilities, evidence = fit_axes(points, noise, starts(points), SHORT_RUN)
    survivors = _distinct(responsibilities, evidence, SURVIVORS)
    responsibilities, evidence = fit_axes(points, noise, responsibilities[survivors], LONG_RUN)
    return [responsibilities[mode] for mode in _distinct(responsibilities, evidence, CANDIDATES)]


def starts(points: Float64Array) -> Float64Array:
    """Return responsibilities (s, n) to start from: all points, and each axis' shortest stretches that hold a share."""
    n, d = points.shape
    order = np.argsort(points, axis=0, kind="stable")
    ordered = np.take_along_axis(points, order, axis=0)
    responsibilities = [np.ones(n)]
    for share in START_SHARES:
        count = int(np.ceil(share * n))
        first = (ordered[count - 1 :] - ordered[: n - count + 1]).argmin(axis=0)
        for axis in range(d):
            inside = np.zeros(n)
            inside[order[first[axis] : first[axis] + count, axis]] = 1
            responsibilities.append(inside)
    return np.array(responsibilities)


def _distinct(responsibilities: Float64Array, evidence: Float64Array, most: int) -> list[int]:
    """Return the first mode and up to `most` others by evidence, each different from all before."""
    selected, nearest = [0], np.abs(responsibilities - responsibilities[0]).mean(axis=1)
    for mode in np.argsort(-evidence, kind="stable").tolist():
        if len(selected) > most:
            break
        if nearest[mode] > SAME_MODE:
            selected.append(mode)
            nearest = np.minimum(nearest, np.abs(responsibilities - responsibilities[mode]).mean(axis=1))
    return selected


def fit_axes(
    points: Float64Array, noise: Float64Array, r: Float64Array, iterations: int
) -> tuple[Float64Array, Float64Array]:
    """Run variational EM with independent axes from s starts: return responsibilities (s, n) and evidence (s,)."""
    n = len(points)
    squares = np.square(points)
    best, best_evidence = r, np.full((len(r), 1), -np.inf)
    for _ in range(iterations):
        size = r.sum(axis=1, keepdims=True) + 1e-9  # (s, 1)
        mean = r @ points / size  # (s, d)
        second = r @ squares / size
        spread = np.maximum(second - mean**2, 0)
        variance = _narrow_variance(spread, size) + noise
        gain = 0.5 * size * (second - np.log(variance) - spread / variance)
        price = _price(mean, variance, size)
        narrow = expit(gain - price)
        # sum over axes of narrow * (log N(x; mean, variance) - log N(x; 0, 1)), as a quadratic in x
        quadratic = 0.5 * narrow * (1 - 1 / variance)
        linear = narrow * mean / variance
        constant = -0.5 * (narrow * (np.log(variance) + mean**2 / variance)).sum(axis=1, keepdims=True)
        ratio = quadratic @ squares.T + linear @ points.T + constant  # (s, n)
        before, (r, evidence) = r, _expectation(ratio, size, n)
        evidence = evidence + (entr(narrow) + entr(1 - narrow) - narrow * price).sum(axis=1)
        better = evidence[:, None] > best_evidence
        best, best_evidence = np.where(better, r, best), np.where(better, evidence[:, None], best_evidence)
        if np.array_equal(r, before):  # few images settle soon
            break
    return best, best_evidence[:, 0]


def refine(points: Float64Array, noise: Float64Array, r: Float64Array) -> _Mode:
    """Run EM with correlations from responsibilities r (n,), over the inliers' principal directions. noise (d, d).

    A direction that is not narrow takes the population's moments, so that it says nothing. Return the iterate of the
    largest evidence.
    """
    n, d = points.shape
    best: _Mode | None = None
    for _ in range(REFINEMENTS):
        moments = Moments.of(points, r)
        size, mean, scatter = moments.size, moments.mean, moments.scatter / moments.size
        spread = np.diag(scatter)
        variance = _narrow_variance(spread, size) + np.diag(noise)
        gain = 0.5 * size * (spread + mean**2 - np.log(variance) - spread / variance)
        narrow = expit(gain - _price(mean, variance, size))
        # With few inliers, the covariance falls back on the axes' own variances.
        weight = 1 / (1 + (CORRELATION_WEIGHT * d / size) ** 2)
        alone = narrow * variance + 1 - narrow
        jitter = NARROW_WEIGHT * NARROW_VARIANCE / (size + NARROW_WEIGHT)
        covariance = weight * (scatter + noise + jitter * np.eye(d)) + (1 - weight) * np.diag(alone)
        mean = mean * (narrow + (1 - narrow) * weight)

        ratio, directions = np.linalg.eigh(covariance)
        ratio = np.clip(ratio, SMALLEST_RATIO, 1)
        along, centre = points @ directions, mean @ directions
        gain = 0.5 * (r @ (along**2 - np.square(along - centre) / ratio) - size * np.log(ratio))
        price = _price(centre, ratio, size)
        narrow = expit(gain - price)
        # Narrow and free are averaged by their natural parameters, so that the context stays one Gaussian.
        shrunk = 1 / (narrow / ratio + 1 - narrow)
        centre = shrunk * narrow * centre / ratio
        log_ratio = 0.5 * (along**2 - np.square(along - centre) / shrunk - np.log(shrunk)).sum(axis=1)
        updated, evidence = _expectation(log_ratio[None], np.array([[size]]), n)
        fits = float(evidence[0] + (entr(narrow) + entr(1 - narrow) - narrow * price).sum())
        if best is None or fits > best.evidence:
            # RELUCTANCE serves the choice of a mode. The share of outliers within it is estimated without it.
            contamination = (n - size + OUTLIERS) / (n + OUTLIERS + INLIERS)
            best = _Mode(directions @ centre, directions * shrunk @ directions.T, contamination, fits)
        settled = np.abs(updated[0] - r).max() < TOLERANCE
        r = updated[0]
        if settled:
            break
    assert best is not None, "there is at least one iteration"
    return best


def _narrow_variance(spread: Float64Array, size: Float64Array | float) -> Float64Array:
    return (size * spread + NARROW_WEIGHT * NARROW_VARIANCE) / (size + NARROW_WEIGHT)


def _price(mean: Float64Array, variance: Float64Array, size: Float64Array | float) -> Float64Array:
    """Return the cost in nats of a direction's own mean and variance: log prior volume over posterior volume.

    The mean's prior is the population's N(0, 1), its posterior sd sqrt(variance / size). The log variance's prior is
    flat over LOG_RANGE in the standard deviation, its posterior sd 1 / sqrt(2 size).
    """
    certainty = np.maximum(size, np.pi)
    price: Float64Array = (
        0.5 * mean**2
        + 0.5 * np.log(certainty / np.minimum(variance, 1))
        + np.log(LOG_RANGE)
        + 0.5 * np.log(certainty / np.pi)
    )
    return price


def _share(size: Float64Array, n: int) -> Float64Array:
    """Return the posterior mean of eps with `size` inliers among n."""
    return (n - size + OUTLIERS) / (n + OUTLIERS + INLIERS + RELUCTANCE * n)


def _expectation(log_ratio: Float64Array, size: Float64Array, n: int) -> tuple[Float64Array, Float64Array]:
    """Return responsibilities (s, n) and penalised log likelihood (s,), from log inlier/population ratios (s, n)."""
    eps = _share(size, n)
    inlier = np.log1p(-eps) + log_ratio
    total = np.logaddexp(inlier, np.log(eps))
    prior = OUTLIERS * np.log(eps) + (INLIERS + RELUCTANCE * n) * np.log1p(-eps)
    return np.exp(inlier - total), total.sum(axis=1) + prior[:, 0]


def _responsibilities(points: Float64Array, mode: _Mode) -> Float64Array:
    population = log_density(points, np.zeros_like(mode.location), np.eye(len(mode.location)))
    log_ratio = log_density(points, mode.location, mode.covariance) - population
    inlier: Float64Array = expit(log_ratio + np.log(1 / mode.contamination - 1))
    return inlier
