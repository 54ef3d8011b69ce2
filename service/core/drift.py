"""Drift: how far recent requests' images lie from the population that the model was trained on.

The squared Mahalanobis distance of an image of the population averages to the number of live latents, whatever the
distribution, and its latents average to the mean: both follow from the definition of the moments.

The images of one request are no independent draws: they resemble each other, which makes them a context. A request
therefore counts once, by its images' mean. If requests are drawn from the population, such a mean varies no more than a
single image does, whatever the images have in common (law of total variance). Over n requests the average of a latent
has a standard error of at most 1 / sqrt(n) standard deviations. That of the distance has at most a single distance's
standard deviation over sqrt(n); for Gaussian latents, relative to the expected distance, that is sqrt(2 / d) / sqrt(n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import Float64Array, IndexArray

# Number of requests that are remembered.
WINDOW = 500
# Requests, and images of them, that wait until they are added together: one by one, most of the time is numpy's calls.
MOST_WAITING, MOST_IMAGES_WAITING = 64, 1_000
# Distances, relative to the expected one, and latents, in standard deviations, are cut off here, so that no single
# request dominates.
MOST_DISTANCE = 10.0
MOST_SHIFT = 4.0


class Drift:
    """The last WINDOW requests, each by its images' mean distance and mean latents."""

    def __init__(self, population: Population, window: int = WINDOW) -> None:
        self._units = PopulationUnits.of(population)
        correlation = self._units.correlation
        # The rank counts latents that are exactly dependent once.
        self._precision = np.linalg.pinv(correlation, hermitian=True)
        self._expected = max(int(np.linalg.matrix_rank(correlation, hermitian=True)) if correlation.size else 0, 1)
        # (window, 1 + d): each request's distance and shift. The newest request replaces the oldest.
        self._recent = np.empty((window, 1 + len(correlation)))
        self._count = 0
        self._waiting: list[NDArray[np.floating]] = []

    def add(self, latents: NDArray[np.floating]) -> None:
        """Add one request's images, by their latents (n, 2, L). Images whose latents are not finite are left out."""
        self._waiting.append(latents)
        if len(self._waiting) > MOST_WAITING or sum(map(len, self._waiting)) > MOST_IMAGES_WAITING:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        latents, requests = (
            np.concatenate(self._waiting),
            np.repeat(range(len(self._waiting)), [*map(len, self._waiting)]),
        )
        finite, self._waiting = np.isfinite(latents).all(axis=(1, 2)), []
        points = self._units.points(latents[finite])  # (n, d)
        if len(points):
            distances = np.einsum("nd,nd->n", points @ self._precision, points) / self._expected
            figures = np.column_stack([np.minimum(distances, MOST_DISTANCE), np.clip(points, -MOST_SHIFT, MOST_SHIFT)])
            _, first, size = np.unique(requests[finite], return_index=True, return_counts=True)
            for row in np.add.reduceat(figures, first) / size[:, None]:
                self._recent[self._count % len(self._recent)] = row
                self._count += 1

    @property
    def requests(self) -> int:
        """Return the number of requests behind the figures below."""
        self._add_waiting()
        return min(self._count, len(self._recent))

    @property
    def distance(self) -> float:
        """Return the mean squared distance to the population over the expected one: 1 without drift or requests."""
        return float(self._recent[: self.requests, 0].mean()) if self.requests else 1.0

    @property
    def live(self) -> IndexArray:
        """Return the indices of the latents that vary over the population."""
        return self._units.live

    @property
    def shift(self) -> Float64Array:
        """Return the live latents' means (d,) from the population's, in its standard deviations; 0 without requests."""
        result: Float64Array = (
            self._recent[: self.requests, 1:].mean(axis=0) if self.requests else np.zeros(len(self.live))
        )
        return result
