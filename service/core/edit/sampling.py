"""Samples of new latents: near one of the normal images, or from the context's Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.distributions import chi2_cdf, chi2_ppf
from service.core.edit.latent_edits import RIM
from service.core.edit.limits import LARGEST_LOGVAR, MOST_IMAGES, check_count
from service.core.types import Float64Array, IndexArray
from service.errors import ContextTooSmall


def sample_empirical(
    latents: NDArray[np.floating], count: int, rng: np.random.Generator
) -> tuple[Float64Array, IndexArray]:
    """Return `count` latents (count, L), each from the posterior of a normal image, and the images' rows (count,).

    y = mean + exp(logvar / 2) noise of an image drawn with replacement from `latents` (n, 2, L).
    Raises InvalidOption for a count out of range, ContextTooSmall where there is no image to draw.
    """
    check_count("samples", count, 1, MOST_IMAGES)
    if len(latents) == 0:
        raise ContextTooSmall(
            "The context holds no normal image to draw from.", "Send normal images, or sample with the gaussian."
        )
    drawn = rng.integers(len(latents), size=count)
    mean, logvar = np.moveaxis(latents[drawn].astype(np.float64), 1, 0)
    deviation = np.exp(np.clip(logvar, -LARGEST_LOGVAR, LARGEST_LOGVAR) / 2)
    return mean + deviation * rng.standard_normal(mean.shape), drawn


def sample_gaussian(
    count: int,
    location: Float64Array,
    covariance: Float64Array,
    live: IndexArray,
    radius_squared: float,
    rng: np.random.Generator,
) -> Float64Array:
    """Return `count` latents (count, L) from N(location, covariance) given D2 <= `radius_squared`.

    Dead dims are at the location. The samples are exact, and none is rejected: a Gaussian's direction and D2 are
    independent, and D2 is chi-square with d degrees of freedom. D2 is drawn by the inverse of its distribution
    function, cut off at `radius_squared`.
    Raises InvalidOption for a count out of range.
    """
    check_count("samples", count, 1, MOST_IMAGES)
    samples = np.tile(location, (count, 1))
    d = len(live)
    if d == 0:
        return samples
    direction = rng.standard_normal((count, d))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    share = rng.random(count) * chi2_cdf(radius_squared, d)
    radius = np.sqrt(np.minimum(chi2_ppf(share, d), radius_squared * (1 - RIM)))
    factor = np.linalg.cholesky(covariance[np.ix_(live, live)])
    samples[:, live] += radius[:, None] * direction @ factor.T
    return samples
