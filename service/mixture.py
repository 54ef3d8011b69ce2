"""The context as a contaminated normal: (1 - eps) N(location, covariance) + eps N(population).

The population is broad, so an image is an inlier where it lies in the directions that the context narrows,
and every other direction must say nothing. That calls for two decisions that plain EM does not take:

- Which directions are narrow? A spike-and-slab prior: a direction either follows the population, or has a
  mean and variance of its own and pays for them (Laplace's approximation of the evidence). This is what
  keeps twenty images in ten dimensions from explaining noise.
- Which mode? A free hue is a ring of ten clumps, and EM settles on whichever it starts near. So it starts
  from the whole batch and from the densest stretches of every axis, and the evidence picks among the ends,
  with a prior that prefers the least contamination which explains the batch.

Points are (n, d) in population units (mean 0, standard deviation 1 on every axis); responsibilities r are
each image's posterior probability of being an inlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.special import entr, expit

from service.context import Float64Array, Moments
from service.estimators import Fit, log_density

# Prior of eps: Beta(OUTLIERS, INLIERS + RELUCTANCE * n). What grows with n holds off small tight modes.
OUTLIERS, INLIERS, RELUCTANCE = 1.0, 1.0, 0.25
# Prior of a narrow axis' variance, worth NARROW_WEIGHT images; it may lie anywhere within exp(LOG_RANGE).
NARROW_WEIGHT, NARROW_VARIANCE, LOG_RANGE = 1.0, 0.02, 4.0
# Correlations of m inliers on d axes count by half at m = CORRELATION_WEIGHT * d, and soon fully above it.
CORRELATION_WEIGHT = 2.0
# Population standard deviations at which a point stops pulling on the moments.
CLIP = 5.0
# The search sees at most this many images; the last fit sees all.
SEARCH_SIZE = 400
START_SHARES = (0.3, 0.5, 0.8)
# Iterations of the search over all starts, of that over the survivors, and of the fit with correlations.
SHORT_RUN, LONG_RUN, REFINEMENTS = 6, 20, 30
# How many starts survive the short run; how many modes beside the whole batch's are fitted with correlations.
SURVIVORS, CANDIDATES = 6, 3
# Modes whose responsibilities differ by less than this on average are one; EM stops where none moves further.
SAME_MODE = 0.01
TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Mode:
    fit: Fit
    evidence: float


def fit_mixture(points: Float64Array, floor: Float64Array, background: Fit) -> Fit:
    """Fit the inliers' moments and eps (`contamination`) to points (n, d), n >= 3, d >= 1."""
    points = np.clip(points, -CLIP, CLIP)
    sample = points[:: -(-len(points) // SEARCH_SIZE)]
    modes = [refine(sample, floor, background, r) for r in _search(sample, floor)]
    best = max(modes, key=lambda mode: mode.evidence)
    if len(sample) < len(points):
        best = refine(points, floor, background, _responsibilities(points, best.fit, background))
    return best.fit


def starts(points: Float64Array) -> Float64Array:
    """Responsibilities (s, n) to start from: all, and each axis' shortest stretches that hold a share."""
    n, d = points.shape
    order = np.argsort(points, axis=0, kind="stable")
    ordered = np.take_along_axis(points, order, axis=0)
    responsibilities = [np.ones(n)]
    for share in START_SHARES:
        held = int(np.ceil(share * n))
        first = (ordered[held - 1 :] - ordered[: n - held + 1]).argmin(axis=0)
        for axis in range(d):
            chosen = np.zeros(n)
            chosen[order[first[axis] : first[axis] + held, axis]] = 1
            responsibilities.append(chosen)
    return np.array(responsibilities)


def _search(points: Float64Array, floor: Float64Array) -> list[Float64Array]:
    """Responsibilities (n,) of the whole batch's mode and of the best modes that differ from it."""
    responsibilities, evidence = fit_axes(points, floor, starts(points), SHORT_RUN)
    survivors = np.unique(np.append(np.argsort(-evidence, kind="stable")[:SURVIVORS], 0))
    responsibilities, evidence = fit_axes(points, floor, responsibilities[survivors], LONG_RUN)
    modes = [responsibilities[0]]
    for candidate in responsibilities[np.argsort(-evidence, kind="stable")]:
        if len(modes) > CANDIDATES:
            break
        if all(np.abs(candidate - mode).mean() > SAME_MODE for mode in modes):
            modes.append(candidate)
    return modes


def fit_axes(
    points: Float64Array, floor: Float64Array, r: Float64Array, iterations: int
) -> tuple[Float64Array, Float64Array]:
    """Variational EM with independent axes, from s starts at once: responsibilities (s, n), evidence (s,)."""
    n = len(points)
    squares = np.square(points)
    wide = 1 + floor
    for _ in range(iterations):
        size = r.sum(axis=1, keepdims=True) + 1e-9  # (s, 1)
        mean = r @ points / size  # (s, d)
        second = r @ squares / size
        spread = np.maximum(second - mean**2, 0)
        variance = _narrow_variance(spread, size) + floor
        gain = 0.5 * size * (second / wide + np.log(wide / variance) - spread / variance)
        price = _price(mean, variance, size)
        narrow = expit(gain - price)
        # sum over axes of narrow * (log N(x; mean, variance) - log N(x; 0, wide)), as a quadratic in x
        quadratic = 0.5 * narrow * (1 / wide - 1 / variance)
        linear = narrow * mean / variance
        constant = (0.5 * narrow * (np.log(wide / variance) - mean**2 / variance)).sum(axis=1, keepdims=True)
        ratio = quadratic @ squares.T + linear @ points.T + constant  # (s, n)
        r, evidence = _expectation(ratio, size, n)
        evidence = evidence + (entr(narrow) + entr(1 - narrow) - narrow * price).sum(axis=1)
    return r, evidence


def refine(points: Float64Array, floor: Float64Array, background: Fit, r: Float64Array) -> _Mode:
    """EM with correlations from responsibilities r (n,), over the directions v in which context and
    population compare: S v = lambda P v. One that is not narrow takes the population's moments: it says nothing.
    """
    n, d = points.shape
    wide = 1 + floor
    population = background.covariance
    for _ in range(REFINEMENTS):
        moments = Moments.of(points, r)
        size, mean, scatter = moments.size, moments.mean, moments.scatter / moments.size
        spread = np.diag(scatter)
        variance = _narrow_variance(spread, size) + floor
        gain = 0.5 * size * ((spread + mean**2) / wide + np.log(wide / variance) - spread / variance)
        narrow = expit(gain - _price(mean, variance, size))
        # With few inliers, correlations and free axes fall back on what each axis says by itself.
        weight = 1 / (1 + (CORRELATION_WEIGHT * d / size) ** 2)
        alone = narrow * variance + (1 - narrow) * wide
        jitter = NARROW_WEIGHT * NARROW_VARIANCE / (size + NARROW_WEIGHT)
        covariance = weight * (scatter + np.diag(floor + jitter)) + (1 - weight) * np.diag(alone)
        mean = mean * (narrow + (1 - narrow) * weight)

        ratio, directions = eigh(covariance, population)
        ratio = np.minimum(ratio, 1)
        along, centre = points @ directions, mean @ directions
        gain = 0.5 * (r @ (along**2 - np.square(along - centre) / ratio) - size * np.log(ratio))
        price = _price(centre, ratio, size)
        narrow = expit(gain - price)
        # Between the two by their natural parameters, so that the context stays one Gaussian.
        shrunk = 1 / (narrow / ratio + 1 - narrow)
        centre = shrunk * narrow * centre / ratio
        log_ratio = 0.5 * (along**2 - np.square(along - centre) / shrunk - np.log(shrunk)).sum(axis=1)
        updated, evidence = _expectation(log_ratio[None], np.array([[size]]), n)
        settled = np.abs(updated[0] - r).max() < TOLERANCE
        r = updated[0]
        if settled:
            break
    back = population @ directions
    # Reluctance is for choosing a mode; within the one chosen, the share is what it looks like.
    contamination = (n - size + OUTLIERS) / (n + OUTLIERS + INLIERS)
    fit = Fit(back @ centre, back * shrunk @ back.T, contamination=contamination)
    return _Mode(fit, float(evidence[0] + (entr(narrow) + entr(1 - narrow) - narrow * price).sum()))


def _narrow_variance(spread: Float64Array, size: Float64Array | float) -> Float64Array:
    return (size * spread + NARROW_WEIGHT * NARROW_VARIANCE) / (size + NARROW_WEIGHT)


def _price(mean: Float64Array, variance: Float64Array, size: Float64Array | float) -> Float64Array:
    """What a mean and a variance of its own cost a direction, in nats: log prior volume over posterior's.

    The mean's prior is the population's N(0, 1), its posterior sd sqrt(variance / size); the log variance's
    prior is flat over LOG_RANGE in the standard deviation, its posterior sd 1 / sqrt(2 size).
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
    """Posterior mean of eps with `size` inliers among n."""
    return (n - size + OUTLIERS) / (n + OUTLIERS + INLIERS + RELUCTANCE * n)


def _expectation(log_ratio: Float64Array, size: Float64Array, n: int) -> tuple[Float64Array, Float64Array]:
    """Responsibilities (s, n) and penalised log likelihood (s,), from log inlier/population densities (s, n)."""
    eps = _share(size, n)
    inlier = np.log1p(-eps) + log_ratio
    total = np.logaddexp(inlier, np.log(eps))
    prior = OUTLIERS * np.log(eps) + (INLIERS + RELUCTANCE * n) * np.log1p(-eps)
    return np.exp(inlier - total), total.sum(axis=1) + prior[:, 0]


def _responsibilities(points: Float64Array, fit: Fit, background: Fit) -> Float64Array:
    log_ratio = log_density(points, fit.location, fit.covariance) - log_density(
        points, background.location, background.covariance
    )
    assert fit.contamination is not None
    inlier: Float64Array = expit(log_ratio + np.log(1 / fit.contamination - 1))
    return inlier
