"""How far a context's images lie from the population: what an estimator may make of the population's density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.core.types import Float64Array

# A divergence of fewer standard errors than these may be chance.
ERRORS = 3.0
# In nats for each latent: of a divergence as large as this, Gaussians tell most of what they can.
NARROW = 0.25
# A standard error in nats is at least this: copies of an image have none.
LEAST_ERROR = 1e-6
# An image makes up at most this share of its own distance.
MOST_LEVERAGE = 0.9


@dataclass(frozen=True)
class Divergence:
    """How much likelier the images of a context are, by their density ratio to the population, than the population's.

    nats   the difference of two means of log((1 + ratio) / 2): that of the context's images, and of the population's.
           The logarithm is bounded below, so that misfits take little away
    error  its standard error
    """

    nats: float
    error: float

    @classmethod
    def of(cls, fitted: Float64Array, left_out: Float64Array, population: Float64Array) -> Divergence:
        """Measure the divergence from log ratios of a context's images (n,), and of the population's (p,).

        Those of `fitted` are by moments that know each image, those of `left_out` by moments of the others. The first
        are too large, the second too small: the true moments lie midway (Akaike 1974).
        """
        known, unknown, other = (np.logaddexp(0, ratios) - np.log(2) for ratios in (fitted, left_out, population))
        nats = (known.mean() + unknown.mean()) / 2 - other.mean()
        return cls(float(nats), float(known.std() / np.sqrt(len(known))))

    @property
    def certainty(self) -> float:
        """Return how surely the context is narrower than the population, from 0 to 1."""
        return float(-np.expm1(-((max(self.nats, 0.0) / (ERRORS * max(self.error, LEAST_ERROR))) ** 2)))

    def narrowness(self, latents: int) -> float:
        """Return how much Gaussians tell on so many latents, from 0 to 1."""
        return float(-np.expm1(-max(self.nats, 0.0) / (NARROW * latents)))


def left_out_distances(distance: Float64Array, size: int) -> Float64Array:
    """Return about the squared distances (n,) of each of `size` images to moments of the others.

    distance  (n,)  the squared distances to moments of all
    """
    leverage = np.minimum(size * distance / max(size - 1, 1) ** 2, MOST_LEVERAGE)
    return np.asarray(distance / (1 - leverage))
