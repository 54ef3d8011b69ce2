"""The density ratio of a context to the population: how much commoner are images like this one here than there?

If what is normal is a rule - one wall hue, any shape - then the inliers are the population's images that obey it, and
the ratio of the two densities, context over population, is the same for all inliers and nil for every other image:
however many clumps the inliers form, and however odd the population's own shape is. The ratio is estimated where an
image is, from the neighbours that it has among the context's images and among a sample of the population:

    ratio(x) = (sum_j w_j K(x, x_j) / mean_p K(x, z_p) + BASE_WEIGHT * base(x)) / (sum_j w_j + BASE_WEIGHT),

the predictive density, relative to the population, of a Dirichlet process (Ferguson 1973) whose base measure is the
context's own Gaussian: base(x) is what `service/core/detect/estimators/mixture.py` makes of the ratio. Where
neighbours are too few to tell, the Gaussian decides. K is a Gaussian kernel with a bandwidth of its own on every axis,
in units of the encoder's own uncertainty. A free axis has an infinite one: it says nothing, and costs no neighbours
(Hall, Racine & Li 2004). Axes are let in, one at a time, while each image is better explained by the others
(leave-one-out likelihood). w_j is the probability that image j is an inlier.

Points (n, d) are in population units over the live latents, rounded, so that a context that travelled as text says
the same; nothing depends on their order, if they come in a canonical one. No image vouches for itself: one neighbour
in the context that is the very same point is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IndexArray = NDArray[np.intp]

# Decimals of a point: far below the encoder's own uncertainty.
DECIMALS = 3
# Bandwidths that are tried, in standard deviations of the encoder's posterior: each twice the one before.
NARROWEST, DOUBLINGS = 1.0, 4
# The search for bandwidths sees 60 images and one in 40, up to a number whose pairs take some 25 MB on ten axes, and so
# many of the population's.
SEARCH_IMAGES, SEARCH_STEP, SEARCH_MOST, SEARCH_SAMPLE = 60, 40, 350, 400
# However many axes there are, it takes at most so many bytes.
SEARCH_BYTES = 160 * 2**20
# A context keeps at most so many images to compare others with.
MOST_IMAGES = 200
# Nats of likelihood that a further axis must bring.
GAIN = 3.0
# How many images the Gaussian counts for.
BASE_WEIGHT = 15.0
# Neighbours in the sample of the population below which its density counts as that of so many.
FEWEST_NEIGHBOURS = 1.0
# Where the share of outliers starts, and its prior: Beta(1, 1 + RELUCTANCE * n).
START_CONTAMINATION, RELUCTANCE = 0.07, 2.0
ROUNDS = 6
# The base's log ratio is cut above, where a ratio is as good as certain. Below, what lies beyond counts by its
# logarithm: the further of two images still ranks first, but how thin a Gaussian is so far out means little.
SMALLEST_LOG, LARGEST_LOG = -300.0, 50.0
# Rows whose neighbours are counted at a time, so that their kernels stay in the cache.
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Kernel:
    """What the context's images are, for others to be compared with.

    points         (m, d)  at most MOST_IMAGES of them
    weights        (m,)    the probability that each is an inlier
    bandwidth      (d,)    infinite where the context is as wide as the population
    """

    points: Float64Array
    weights: Float64Array
    bandwidth: Float64Array


def fit_kernel(points: Float64Array, resolution: Float64Array, sample: Float64Array, base: Float64Array) -> Kernel:
    """Fit the kernel of a context to its points (n, d), n >= 3."""
    points, sample = np.round(points, DECIMALS), np.round(sample, DECIMALS)
    bandwidth = choose_bandwidths(points, resolution, sample)
    step = -(-len(points) // MOST_IMAGES)
    selected = points[::step]
    itself = own_places(points, selected)
    near = list(kernel_pieces(points, selected, bandwidth))
    density, by_base = population_density(points, sample, bandwidth), weights_of_base(base)
    weights, contamination = np.ones(len(selected)), np.array(START_CONTAMINATION)
    for _ in range(ROUNDS):
        ratio = ratios(_weight_near(near, weights), density, by_base, own_weights(itself, weights), weights.sum())
        inlier = ratio / (ratio + contamination / (1 - contamination))
        contamination = _share(inlier.sum(), len(points))
        # Rounded like the points: what travels as text must be what is scored with.
        weights = np.round(inlier[::step], DECIMALS)
    return Kernel(selected, weights, bandwidth)


def log_ratios(points: Float64Array, kernel: Kernel, sample: Float64Array, base: Float64Array) -> Float64Array:
    """Log ratios (..., n) of context to population at points (n, d); `sample` (p, d) as for the fit, bases (..., n)."""
    points, sample = np.round(points, DECIMALS), np.round(sample, DECIMALS)
    near = _weight_near(kernel_pieces(points, kernel.points, kernel.bandwidth), kernel.weights)
    density = population_density(points, sample, kernel.bandwidth)
    own = own_weights(own_places(points, kernel.points), kernel.weights)
    return np.log(ratios(near, density, weights_of_base(base), own, kernel.weights.sum()))


def _weight_near(near: Iterable[Float32Array], weights: Float64Array) -> Float64Array:
    """Return the weight (n,) near each point, from kernels (n, m) in pieces and weights (m,)."""
    return np.concatenate([piece @ weights for piece in near])


def choose_bandwidths(points: Float64Array, resolution: Float64Array, sample: Float64Array) -> Float64Array:
    """Choose a bandwidth for every axis (d,): infinite where an axis does not tell the points from the population."""
    points = points[:: -(-len(points) // count_searched(*points.shape))]
    sample = sample[:: -(-len(sample) // SEARCH_SAMPLE)]
    n, d = points.shape
    near = _every_bandwidth(points, points, resolution).transpose(1, 2, 0, 3)  # (d, b, n, n)
    there = _every_bandwidth(points, sample, resolution).reshape(n, -1, len(sample))  # (n, d b, p)
    near_so_far = 1 - np.eye(n, dtype=np.float32)
    there_so_far = np.ones((n, len(sample)), dtype=np.float32)
    bandwidth, free = np.full(d, np.inf), np.arange(d)
    best = _likelihood_of_free_axes(n)
    while free.size:
        fewest = FEWEST_NEIGHBOURS / len(sample)
        # (n, d b, p) @ (n, p, 1): one product for each image
        counts = (there @ there_so_far[:, :, None]).reshape(n, d, -1)[:, free].reshape(n, -1).T
        density = np.maximum(counts / len(sample), fewest)
        likelihood = _log_likelihood((near[free] * near_so_far).reshape(-1, n, n), density.astype(np.float64))
        most = int(likelihood.argmax())
        if likelihood[most] < best + GAIN:
            break
        place, choice = divmod(most, near.shape[1])
        best, axis = float(likelihood[most]), free[place]
        bandwidth[axis] = resolution[axis] * NARROWEST * 2.0**choice
        near_so_far = near_so_far * near[axis, choice]
        there_so_far = there_so_far * there[:, axis * near.shape[1] + choice]
        free = free[free != axis]
    return bandwidth


@lru_cache(maxsize=512)
def _likelihood_of_free_axes(n: int) -> float:
    """Return the log likelihood of n points while every axis is free."""
    near = 1 - np.eye(n, dtype=np.float32)
    return float(_log_likelihood(near[None], np.ones((1, n)))[0])


def count_searched(images: int, axes: int) -> int:
    """Return how many of so many images on so many axes the search for bandwidths sees, at most."""
    # n images take the bytes of n (n + 2 n + 2 SEARCH_SAMPLE) kernels: as they are computed, and as they are used.
    kernels = SEARCH_BYTES // (4 * (DOUBLINGS + 1) * max(axes, 1))
    fits = int((np.sqrt(SEARCH_SAMPLE**2 + 3 * kernels) - SEARCH_SAMPLE) / 3)
    return min(SEARCH_IMAGES + images // SEARCH_STEP, SEARCH_MOST, fits)


def _log_likelihood(near: Float32Array, density: Float64Array) -> Float64Array:
    """Return the leave-one-out log likelihood (c,) relative to the population, of c choices of bandwidths.

    near     (c, n, n)  kernels between the points
    density  (c, n)     density of the population at the points
    """
    choices, n = density.shape
    weights, total, eps = (
        np.ones((choices, n)),
        np.full((choices, 1), float(n)),
        np.full((choices, 1), START_CONTAMINATION),
    )
    for _ in range(ROUNDS):
        weight = (near @ weights[:, :, None].astype(np.float32))[:, :, 0]
        ratio = (weight / density + 1) / (total + 1 - weights)
        weights = ratio / (ratio + eps / (1 - eps))
        total = weights.sum(axis=1, keepdims=True)
        eps = _share(total, n)
    fits = np.log((1 - eps) * ratio + eps).sum(axis=1)
    prior: Float64Array = (np.log(eps) + RELUCTANCE * n * np.log1p(-eps))[:, 0]
    return np.asarray(fits + prior)


def _share(inliers: Float64Array, n: int) -> Float64Array:
    """Return the posterior mean of the share of outliers, with so many inliers among n."""
    return np.asarray((n + 1 - inliers) / (n * (1 + RELUCTANCE) + 2))


def ratios(
    near: Float64Array, density: Float64Array, by_base: Float64Array, own: Float64Array, total: float
) -> Float64Array:
    """Return the ratio (..., n) by the weights near each point, its `own` among them, of a `total`: the module's
    formula.
    """
    return np.asarray((np.maximum(near - own, 0) / density + by_base) / (total - own + BASE_WEIGHT))


def weights_of_base(base: Float64Array) -> Float64Array:
    """Return what the log ratios (...) of the Gaussian base count for in the module's formula, (...)."""
    beyond = np.log1p(np.maximum(SMALLEST_LOG - base, 0))
    return np.asarray(BASE_WEIGHT * np.exp(np.clip(base, SMALLEST_LOG, LARGEST_LOG) - beyond))


def own_places(points: Float64Array, selected: Float64Array) -> IndexArray:
    """Return where each of points (n, d) stands among the kernel's points (m, d), or -1."""
    places = {point: place for place, point in enumerate(row_bytes(selected))}
    return np.array([places.get(point, -1) for point in row_bytes(points)], dtype=np.intp)


def row_bytes(points: Float64Array) -> list[bytes]:
    """Return each of points (n, d) as bytes: equal ones alike, also 0 and -0."""
    if not points.shape[1]:  # numpy has no items of no bytes
        return len(points) * [b""]
    whole = np.dtype((np.void, points.shape[1] * points.itemsize))
    rows: list[bytes] = np.ascontiguousarray(points + 0.0).view(whole)[:, 0].tolist()
    return rows


def own_weights(places: IndexArray, weights: Float64Array) -> Float64Array:
    """Return the weights (n,) at those places, 0 where there is none."""
    return np.where(places < 0, 0.0, weights[places])


def population_density(points: Float64Array, sample: Float64Array, bandwidth: Float64Array) -> Float64Array:
    """Return the density (n,) of the population's sample (p, d) at points (n, d): 1 where no bandwidth is finite."""
    if np.isinf(bandwidth).all():
        return np.ones(len(points))
    return np.concatenate([density_of(piece) for piece in kernel_pieces(points, sample, bandwidth)])


def density_of(kernels: Float32Array) -> Float64Array:
    """Return the density (n,) of the kernels (n, p) of the population's images."""
    density: Float64Array = np.maximum(kernels.mean(axis=1, dtype=np.float64), FEWEST_NEIGHBOURS / kernels.shape[1])
    return density


def kernels_between(points: Float64Array, others: Float64Array, bandwidth: Float64Array) -> Float32Array:
    """Return kernels (n, m) between points (n, d) and others (m, d): 1 where they coincide."""
    return np.concatenate(list(kernel_pieces(points, others, bandwidth)))


def kernel_pieces(points: Float64Array, others: Float64Array, bandwidth: Float64Array) -> Iterator[Float32Array]:
    """Yield `kernels_between`, some rows at a time: those of many images and all of the population take megabytes."""
    used = np.flatnonzero(np.isfinite(bandwidth))
    own, theirs = (side[:, used] / bandwidth[used] for side in (points, others))
    # Half the squared gaps in one product: ab - aa/2 - bb/2.
    left = np.column_stack([own, -0.5 * np.square(own).sum(axis=1), np.ones(len(own))])
    right = np.column_stack([theirs, np.ones(len(theirs)), -0.5 * np.square(theirs).sum(axis=1)])
    for start in range(0, max(len(points), 1), ROWS_AT_ONCE):
        kernels: Float32Array = (left[start : start + ROWS_AT_ONCE] @ right.T).astype(np.float32)
        yield np.exp(kernels, out=kernels)


def _every_bandwidth(points: Float64Array, others: Float64Array, resolution: Float64Array) -> Float32Array:
    """Return kernels (n, d, b, m) on each axis alone, for every bandwidth, the narrowest first."""
    widest = resolution * NARROWEST * 2.0**DOUBLINGS
    gaps = (points / widest).astype(np.float32)[:, :, None] - (others / widest).T.astype(np.float32)
    kernels = np.empty((*gaps.shape[:2], DOUBLINGS + 1, len(others)), dtype=np.float32)
    kernels[:, :, DOUBLINGS] = np.exp(-0.5 * np.square(gaps))
    for place in range(DOUBLINGS, 0, -1):  # half the bandwidth is the fourth power
        kernels[:, :, place - 1] = np.square(np.square(kernels[:, :, place]))
    return kernels
