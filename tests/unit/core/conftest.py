"""A population, a request batch with outliers in it, and names for its latents."""

import numpy as np
import pytest

from service.core.detect import scoring
from service.core.latent import Latent
from service.core.population import Population

NAMES = ["latent 0 (dead)", "object hue", "scale", "latent 3 (dead)", "shape", "wall hue"]
LIVE = [1, 2, 4, 5]


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((3000, 6)) @ np.linalg.cholesky(0.8 * np.eye(6) + 0.2).T + rng.standard_normal(6)
    mean[:, [0, 3]] *= 0.01
    return Population.from_latents(np.stack([mean, np.full_like(mean, -5.0)], axis=1))


@pytest.fixture(scope="module")
def batch(population):
    """200 images alike in object hue and shape; images 0-4 differ in object hue, each its own way, 5-9 in both."""
    rng = np.random.default_rng(1)
    mean = rng.multivariate_normal(population.location, population.covariance, 200)
    mean[:, 1], mean[:, 4] = 0.3, -0.2
    mean[:, [1, 4]] += 0.05 * rng.standard_normal((200, 2))
    mean[:10, 1] += [-1.9, 1.2, -1.4, 1.6, 0.9, 1.1, -0.9, 2.0, -1.2, 1.4]
    mean[5:10, 4] -= [1.0, 1.5, -1.2, 0.8, -0.8]
    latents = np.stack([mean, np.full_like(mean, -5.0)], axis=1).astype(np.float32)
    scores = scoring.score(latents, population)
    assert scores.is_outlier[:10].all()
    return latents, scores


@pytest.fixture(scope="module")
def named():
    return [
        Latent(index=k, name=name, factor=None if "latent" in name else name, dead=k not in LIVE)
        for k, name in enumerate(NAMES)
    ]
