"""Axes of a collection: directions in which the features of its images differ.

Principal axes say where the images spread most. Locality preserving projections (He & Niyogi 2003) say in which
directions images lie far apart whose neighbours lie close: those that tell one kind of image from another. They are
linear, so that an axis is a weighted sum of features, and its heat map adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from service.core.types import Float64Array

# Neighbours of an image, by the cosine of the angle between features.
NEIGHBOURS = 15
# The share of a collection that a photograph should have near it to be one of its kinds.
CROWD, FEWEST_IN_CROWD = 0.05, 4
# Variances below this share of the largest one are rounding errors.
NO_VARIANCE = 1e-9


@dataclass
class FeatureMoments:
    """Sums over the features of any number of images: they give mean and covariance, and add up exactly.

    total    (C,)
    squares  (C, C)
    """

    size: int
    total: Float64Array
    squares: Float64Array

    @classmethod
    def empty(cls, channels: int) -> FeatureMoments:
        return cls(0, np.zeros(channels), np.zeros((channels, channels)))

    def add(self, features: Float64Array) -> None:
        """Add the features (n, C) of n images."""
        self.size += len(features)
        self.total += features.sum(axis=0)
        self.squares += features.T @ features

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        """Return the moments of the images of both."""
        return FeatureMoments(self.size + other.size, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: FeatureMoments) -> FeatureMoments:
        """Return the moments without the images of `other`."""
        return FeatureMoments(self.size - other.size, self.total - other.total, self.squares - other.squares)

    def principal(self, most: int) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Return the mean (C,), at most `most` principal axes (C, p) of length 1, and the variances (p,) along them,
        the largest first.
        """
        mean = self.total / self.size
        covariance = (self.squares - np.outer(mean, self.total)) / max(self.size - 1, 1)
        channels = len(mean)
        first = max(channels - most, 0)
        variances, axes = eigh(covariance, subset_by_index=(first, channels - 1))
        variances, axes = variances[::-1], axes[:, ::-1]
        real = variances > NO_VARIANCE * max(variances[0], np.finfo(np.float64).tiny)
        return mean, axes[:, real], variances[real]


def directions(features: Float64Array) -> Float64Array:
    """Return features (n, C) scaled to length 1: what a picture shows, and not how much of it."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, np.finfo(np.float64).tiny))


def residuals(features: Float64Array, mean: Float64Array, principal: Float64Array) -> Float64Array:
    """Return the squared distances (n,) of features (n, C) from the span of `principal` (C, p) through `mean`."""
    centred = features - mean
    within = centred @ principal
    return np.asarray(np.maximum(np.square(centred).sum(axis=1) - np.square(within).sum(axis=1), 0.0))


def crowd_distances(features: Float64Array, sample: Float64Array) -> Float64Array:
    """Return how far each of features (n, C) lies from the nearest CROWD of a sample (m, C) of its collection, (n,): 1
    less the cosine of the angle to the furthest of them.

    Fewer strangers than that, however alike they are, do not vouch for each other.
    """
    count = min(max(round(CROWD * len(sample)), FEWEST_IN_CROWD), len(sample))
    cosines = directions(features).astype(np.float32) @ directions(sample).astype(np.float32).T
    place = len(sample) - count
    return np.asarray(1 - np.partition(cosines, place, axis=1)[:, place].astype(np.float64))


def locality_preserving(
    features: Float64Array, mean: Float64Array, principal: Float64Array, variances: Float64Array, count: int
) -> Float64Array:
    """Return `count` axes (C, count), such that centred features have variance 1 along each.

    features  (n, C)  a sample of the collection
    The axes lie in the span of `principal` (C, p), count <= p; `variances` (p,) are those along it. The first tells
    neighbours from strangers best.
    """
    white = principal / np.sqrt(variances)
    points = (features - mean) @ white
    graph = _neighbours(features)
    degrees = graph.sum(axis=1)
    between = (points.T * degrees) @ points / degrees.sum()
    within = between - points.T @ (graph @ points) / degrees.sum()
    # The sample may be smaller than the collection: a little of the identity keeps `between` definite.
    between += 1e-3 * np.trace(between) / len(between) * np.eye(len(between))
    _, axes = eigh(within, between, subset_by_index=(0, count - 1))
    spread = np.sqrt(np.einsum("ij,ij->j", axes, axes))  # the collection's: `points` have the identity as covariance
    axes = white @ (axes / spread)
    largest = np.abs(axes).argmax(axis=0)
    return np.asarray(axes * np.sign(axes[largest, np.arange(count)]))


def _neighbours(features: Float64Array) -> Float64Array:
    """Return which features (n, C) are neighbours of which, (n, n), 0 or 1, in either direction."""
    towards = directions(features).astype(np.float32)
    cosines = towards @ towards.T
    np.fill_diagonal(cosines, -np.inf)
    count = min(NEIGHBOURS, len(features) - 1)
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    graph = np.zeros(cosines.shape, dtype=np.float64)
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    return np.asarray(np.maximum(graph, graph.T))
