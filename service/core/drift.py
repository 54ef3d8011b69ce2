"""Drift: how far the images of recent requests lie from the population that the model was trained on.

An image drawn from the population has, by the definition of its moments, a squared Mahalanobis distance to it of as
many as it has live latents, on average, whatever the distribution is. And its latents are, on average, at the mean.

The images of one request are no independent draws: they resemble each other, which is what makes them a context. So a
request counts once, by its images' mean, however many it has. If requests are drawn from the population, whatever they
have in common inside, such a mean varies no more than a single image does (law of total variance): over n requests the
average of a latent is off by no more than 1 / sqrt(n) standard deviations, and that of the distance by no more than a
single distance's standard deviation over sqrt(n), for Gaussian latents sqrt(2 / d).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import Float64Array, IndexArray

# Requests that are looked back on.
WINDOW = 500
# No image counts for more, so that no single request does: of a distance in units of what is expected, and of a latent
# in standard deviations.
MOST_DISTANCE = 10.0
MOST_SHIFT = 4.0


class Drift:
    """The last WINDOW requests, each by its images' mean distance and mean latents."""

    def __init__(self, population: Population, window: int = WINDOW) -> None:
        self._units = PopulationUnits.of(population)
        correlation = self._units.correlation()
        # Of latents that move together exactly, only what is independent counts.
        self._precision = np.linalg.pinv(correlation, hermitian=True)
        self._expected = max(int(np.linalg.matrix_rank(correlation, hermitian=True)) if correlation.size else 0, 1)
        # (window, 1 + d): of each request the distance and the shift, the newest in place of the oldest.
        self._recent = np.empty((window, 1 + len(correlation)))
        self._seen = 0

    def add(self, latents: NDArray[np.floating]) -> None:
        """One request's images, by their latents (n, 2, L). Such as are not finite count for nothing."""
        points = self._units.points(latents[np.isfinite(latents).all(axis=(1, 2))])  # (n, d)
        if len(points):
            distances = np.einsum("nd,nd->n", points @ self._precision, points) / self._expected
            row = self._recent[self._seen % len(self._recent)]
            row[0] = np.minimum(distances, MOST_DISTANCE).mean()
            row[1:] = np.clip(points, -MOST_SHIFT, MOST_SHIFT).mean(axis=0)
            self._seen += 1

    @property
    def requests(self) -> int:
        """How many requests the figures below rest on."""
        return min(self._seen, len(self._recent))

    @property
    def distance(self) -> float:
        """Squared distance to the population in units of what it would be without drift: 1. Also 1 for no request."""
        return float(self._recent[: self.requests, 0].mean()) if self._seen else 1.0

    @property
    def live(self) -> IndexArray:
        """Indices of the latents that vary over the population."""
        return self._units.live

    @property
    def shift(self) -> Float64Array:
        """The live latents' means (d,), from the population's, in its standard deviations; 0 for no request."""
        found: Float64Array = self._recent[: self.requests, 1:].mean(axis=0) if self._seen else np.zeros(len(self.live))
        return found
