"""The moments of a context in which the tests edit latents, and random latents about them. Latent 1 is dead."""

from __future__ import annotations

import numpy as np

LOCATION = np.array([1.0, 0.0, -2.0, 0.5, 0.25])
LIVE = np.array([0, 2, 3, 4])


def _covariance():
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((5, 5)) * [1.0, 0.05, 0.3, 2.0, 0.6]
    covariance = spread.T @ spread / 5
    covariance[1, :] = covariance[:, 1] = 0
    covariance[1, 1] = 0.004
    return covariance


COVARIANCE = _covariance()
CONTEXT = (LOCATION, COVARIANCE, LIVE)


def random_latents(n, seed=1):
    return LOCATION + 3 * np.random.default_rng(seed).standard_normal((n, 5))
