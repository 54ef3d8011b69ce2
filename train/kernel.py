"""The context as a part of the population: how much commoner are images like this one here than they are there?

If what is normal is a rule - one wall hue, any shape - then the inliers are the population's images that obey it, and
the ratio of the two densities, context over population, is the same for all inliers and nil for every other image:
however many clumps the inliers form, and however odd the population's own shape is. The ratio is estimated where an
image is, from the neighbours that it has among the context's images and among a sample of the population:

    ratio(x) = (sum_j w_j K(x, x_j) / mean_p K(x, z_p) + 1) / (sum_j w_j + 1),

the predictive density, relative to the population, of a Dirichlet process with the population as its base and a weight
of one image. K is a Gaussian with a bandwidth of its own on every axis, in units of the encoder's own uncertainty. A
free axis has an infinite one: it says nothing, and costs no neighbours (Hall, Racine & Li 2004). Axes are let in, one
at a time, while each image is better explained by the others (leave-one-out likelihood). w_j is the probability that
image j is an inlier.

Points are in population units over the live latents. Nothing depends on their order, if they come in a canonical one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.context import Float64Array

Float32Array = NDArray[np.float32]

# Bandwidths that are tried, in standard deviations of the encoder's posterior.
BANDWIDTHS = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
# The search for bandwidths sees at most so many images, and so many of the population's.
SEARCH_IMAGES, SEARCH_SAMPLE = 120, 1_000
# A context keeps at most so many images to compare others with.
MOST_IMAGES = 400
# Nats of likelihood that a further axis must bring.
GAIN = 4.0
# Neighbours in the sample of the population below which its density counts as that of so many.
FEWEST_NEIGHBOURS = 1.0
# Where the share of outliers starts, and its prior: Beta(1, 1 + RELUCTANCE * n).
START_CONTAMINATION, RELUCTANCE = 0.07, 2.0
ROUNDS = 6
# Log odds of an image whose log ratio falls short of the typical one by x: SHARPNESS * x - TOLERANCE, and the prior's,
# Beta(1, PRIOR_INLIERS). A typical image of a smooth context has neighbours fewer by a factor of a few.
SHARPNESS, TOLERANCE, PRIOR_INLIERS = 2.0, 2.5, 19.0
CALIBRATION_ROUNDS = 50


@dataclass(frozen=True)
class Kernel:
    """What the context's images are, for others to be compared with.

    points         (m, d)
    weights        (m,)    the probability that each is an inlier
    bandwidth      (d,)    infinite where the context is as wide as the population
    typical        the median log ratio of its images
    contamination  the estimated share of outliers among them
    """

    points: Float64Array
    weights: Float64Array
    bandwidth: Float64Array
    typical: float
    contamination: float


def fit_kernel(points: Float64Array, resolution: Float64Array, sample: Float64Array) -> tuple[Kernel, Float64Array]:
    """The context of points (n, d), n >= 3, and their own log ratios (n,), each from the other images alone.

    resolution  (d,)    standard deviation of the encoder's posterior
    sample      (m, d)  images of the population
    """
    bandwidth = choose_bandwidths(points, resolution, sample)
    step = -(-len(points) // MOST_IMAGES)
    kept = points[::step]
    near = _neighbours(points, kept, bandwidth)
    near[np.arange(len(points))[::step], np.arange(len(kept))] = 0
    density = _population_density(points, sample, bandwidth)
    own = np.zeros(len(points))
    weights, contamination = np.ones(len(points)), START_CONTAMINATION
    for _ in range(ROUNDS):
        own[::step] = weights[::step]
        ratio = ((near @ weights[::step]) / density + 1) / (weights[::step].sum() - own + 1)
        weights = (1 - contamination) * ratio / ((1 - contamination) * ratio + contamination)
        contamination = (len(points) - weights.sum() + 1) / (len(points) * (1 + RELUCTANCE) + 2)
    log_ratio = np.log(ratio)
    typical = float(np.median(log_ratio))
    share = _contamination(log_ratio, typical)
    return Kernel(kept, weights[::step], bandwidth, typical, share), log_ratio


def log_ratios(points: Float64Array, kernel: Kernel, sample: Float64Array) -> Float64Array:
    """Log ratio (n,) of context to population at points (n, d) that are not among the context's own."""
    near = _neighbours(points, kernel.points, kernel.bandwidth) @ kernel.weights
    density = _population_density(points, sample, kernel.bandwidth)
    ratio: Float64Array = np.log((near / density + 1) / (kernel.weights.sum() + 1))
    return ratio


def log_odds(log_ratio: Float64Array, kernel: Kernel) -> Float64Array:
    """Log posterior odds (n,) of outlier against inlier, calibrated against what is typical of the context."""
    odds: Float64Array = _evidence(log_ratio, kernel.typical) + np.log(
        kernel.contamination / (1 - kernel.contamination)
    )
    return odds


def choose_bandwidths(points: Float64Array, resolution: Float64Array, sample: Float64Array) -> Float64Array:
    """A bandwidth for every axis (d,), infinite for those that tell the points from the population in no way."""
    points = points[:: -(-len(points) // SEARCH_IMAGES)]
    sample = sample[:: -(-len(sample) // SEARCH_SAMPLE)]
    n, d = points.shape
    choices = np.outer(resolution, BANDWIDTHS)  # (d, b)
    near = _axis_kernels(points, points, choices)
    there = np.ascontiguousarray(_axis_kernels(points, sample, choices).transpose(2, 0, 1, 3))  # (n, d, b, p)
    near_so_far = 1 - np.eye(n, dtype=np.float32)
    there_so_far = np.ones((n, len(sample)), dtype=np.float32)
    bandwidth, free = np.full(d, np.inf), np.arange(d)
    best = float(_log_likelihood(near_so_far[None], np.ones((1, n)))[0])
    while free.size:
        fewest = FEWEST_NEIGHBOURS / len(sample)
        # (n, a b, p) @ (n, p, 1): one product for each image
        counts = (there[:, free].reshape(n, -1, len(sample)) @ there_so_far[:, :, None])[:, :, 0].T
        density = np.maximum(counts / len(sample), fewest)
        likelihood = _log_likelihood((near[free] * near_so_far).reshape(-1, n, n), density.astype(np.float64))
        place, choice = np.unravel_index(likelihood.argmax(), (free.size, len(BANDWIDTHS)))
        if likelihood.max() < best + GAIN:
            break
        best, axis = float(likelihood.max()), free[place]
        bandwidth[axis] = choices[axis, choice]
        near_so_far, there_so_far = near_so_far * near[axis, choice], there_so_far * there[:, axis, choice]
        free = np.delete(free, place)
    return bandwidth


def _log_likelihood(near: Float32Array, density: Float64Array) -> Float64Array:
    """Leave-one-out log likelihood (c,) relative to the population, for c choices: near (c, n, n), density (c, n)."""
    choices, n = density.shape
    weights, eps = np.ones((choices, n)), np.full((choices, 1), START_CONTAMINATION)
    for _ in range(ROUNDS):
        found = (near @ weights[:, :, None].astype(np.float32))[:, :, 0]
        ratio = (found / density + 1) / (weights.sum(axis=1, keepdims=True) - weights + 1)
        weights = (1 - eps) * ratio / ((1 - eps) * ratio + eps)
        eps = (n - weights.sum(axis=1, keepdims=True) + 1) / (n * (1 + RELUCTANCE) + 2)
    fits = np.log((1 - eps) * ratio + eps).sum(axis=1)
    prior: Float64Array = (np.log(eps) + RELUCTANCE * n * np.log1p(-eps))[:, 0]
    return np.asarray(fits + prior)


def _evidence(log_ratio: Float64Array, typical: float) -> Float64Array:
    return SHARPNESS * (typical - log_ratio) - TOLERANCE


def _contamination(log_ratio: Float64Array, typical: float) -> float:
    """The share of outliers (EM over the calibrated odds)."""
    evidence, share = _evidence(log_ratio, typical), 1 / (1 + PRIOR_INLIERS)
    for _ in range(CALIBRATION_ROUNDS):
        found = expit(evidence + np.log(share / (1 - share))).sum()
        share = (found + 1) / (len(log_ratio) + 1 + PRIOR_INLIERS)
    return float(share)


def _population_density(points: Float64Array, sample: Float64Array, bandwidth: Float64Array) -> Float64Array:
    near = _neighbours(points, sample, bandwidth).mean(axis=1, dtype=np.float64)
    density: Float64Array = np.maximum(near, FEWEST_NEIGHBOURS / len(sample))
    return density


def _neighbours(points: Float64Array, others: Float64Array, bandwidth: Float64Array) -> Float32Array:
    """K (n, m) of points (n, d) and others (m, d), 1 where they coincide."""
    used = np.flatnonzero(np.isfinite(bandwidth))
    squares = np.zeros((len(points), len(others)), dtype=np.float32)
    for axis in used:
        scaled = (points[:, axis] / bandwidth[axis]).astype(np.float32)
        squares += np.square(scaled[:, None] - (others[:, axis] / bandwidth[axis]).astype(np.float32))
    kernel: Float32Array = np.exp(-0.5 * squares)
    return kernel


def _axis_kernels(points: Float64Array, others: Float64Array, bandwidths: Float64Array) -> Float32Array:
    """K (d, b, n, m) of each axis alone, for its bandwidths (d, b)."""
    gaps = np.square(points.T[:, :, None] - others.T[:, None, :]).astype(np.float32)
    scale = (-0.5 / np.square(bandwidths)).astype(np.float32)
    kernels: Float32Array = np.exp(gaps[:, None] * scale[:, :, None, None])
    return kernels
