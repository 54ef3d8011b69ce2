"""The linear discriminant of a context against its population (Fisher 1936), with a ridge.

Neighbours are few on many axes. To which side of the population a context lies as a whole tells more, since only one
direction is estimated: it is the log ratio of two Gaussians that share one covariance,

    log ratio(x) = (x - mean / 2) . beta,    beta proportional to (pooled scatter + ridge)^-1 mean.

The pooled scatter is half the context's and half the population's, about the point between their means. The ridge is
how exactly the encoder knows each axis. A context in the population's middle has beta 0: the discriminant says nothing.

Points (n, d) are in population units, so that the population's mean is 0. No image vouches for itself: an image of the
context is judged by the discriminant of the others.
"""

from __future__ import annotations

import numpy as np

from service.core.detect.density_ratio import DECIMALS, Kernel, own_places
from service.core.types import Float64Array

# Images of the context that are judged at a time.
ROWS_AT_ONCE = 64


def ratio_shares(points: Float64Array, kernel: Kernel, correlation: Float64Array, ridge: Float64Array) -> Float64Array:
    """Return what each axis adds to the log ratio of context to population at points (n, d), (n, d).

    kernel       what the context's images are, and the probability that each is an inlier
    correlation  (d, d)  the population's covariance
    ridge        (d,)    a variance
    """
    points = np.round(points, DECIMALS)
    total = kernel.weights.sum()
    if total <= 0:
        return np.zeros(points.shape)
    mean = kernel.weights @ kernel.points / total
    centred = kernel.points - mean
    covariance = (centred.T * kernel.weights) @ centred / total
    background = correlation + 2 * np.diag(ridge)
    shares = (points - mean / 2) * _direction(mean, covariance + background)
    places = own_places(points, kernel.points)
    inside = np.flatnonzero(places >= 0)
    for rows in np.array_split(inside, -(-len(inside) // ROWS_AT_ONCE)) if len(inside) else ():
        own = kernel.weights[places[rows], None] / total
        # One image is never all that there is: its weight is at most 1.
        left = np.maximum(1 - own, own)
        gaps = points[rows] - mean
        means = mean - own / left * gaps
        scatter = covariance - (own / left)[:, :, None] * gaps[:, :, None] * gaps[:, None, :]
        beta = _direction(means, scatter / left[:, :, None] + background)
        shares[rows] = (points[rows] - means / 2) * beta
    return np.asarray(shares)


def _direction(mean: Float64Array, covariances: Float64Array) -> Float64Array:
    """Return beta (..., d) from the context's mean (..., d) and the sum of both covariances and the ridge (..., d, d).

    Least squares of being of the context, 0 or 1, as a log ratio: their scatter contains what lies between the means.
    """
    pooled = covariances / 2 + mean[..., :, None] * mean[..., None, :] / 4
    towards = np.linalg.solve(pooled, mean[..., None])[..., 0]
    return np.asarray(towards / (1 - (towards * mean).sum(axis=-1, keepdims=True) / 4))
