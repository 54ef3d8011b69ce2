"""The mutual information gap (MIG) and SSIM: pure functions on arrays. All information is in nats."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from skimage.metrics import structural_similarity
from sklearn.metrics import mutual_info_score

from train.information import assign_bins

Floats = NDArray[np.float64]


class InformationGap(NamedTuple):
    """The mutual information gap (Chen et al. 2018, eq. 6) and the quantities that it is computed from.

    gap                 mean of `per_factor`
    per_factor          (K,) gap between the two most informative latents, as a share of the factor's entropy
    mutual_information  (L, K)
    factor_entropy      (K,)
    """

    gap: float
    per_factor: Floats
    mutual_information: Floats
    factor_entropy: Floats


def information_gap(mean: NDArray[np.floating], factors: NDArray[np.int64]) -> InformationGap:
    """Return the MIG of the encoder's means, each cut into 20 bins of equal width, as in disentanglement_lib.

    `mean` is (N, L) and `factors` is (N, K). A reliable figure needs at least 10,000 images.
    """
    information = np.array(
        [[mutual_info_score(dim, factor) for factor in factors.T] for dim in map(assign_bins, mean.T)]
    )
    return _gap(information, _entropies(factors))


def sampled_information_gap(
    mean: Floats,
    logvar: Floats,
    factors: NDArray[np.int64],
    *,
    samples: int = 2_000,
    seed: int = 0,
) -> InformationGap:
    """Return the MIG with the estimator of its paper: I(z; v) = H(z) - H(z | v), z drawn from the posteriors.

    Both entropies are Monte Carlo averages of log densities. The densities q(z) and q(z | v) are mixtures of the
    posteriors of all N images, or of the images whose factor has the value v (Chen et al. 2018, sec. 4.1 and appendix
    C.3). `mean` and `logvar` are (N, L), `factors` is (N, K); `samples` images are drawn.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(mean), size=min(samples, len(mean)), replace=False)
    latents = mean[drawn] + np.exp(0.5 * logvar[drawn]) * rng.standard_normal(mean[drawn].shape)
    information = np.empty((mean.shape[1], factors.shape[1]))
    for dim in range(mean.shape[1]):
        log_densities = _log_normal(latents[:, dim, None], mean[:, dim], logvar[:, dim])  # (samples, N)
        entropy = -_log_mean(log_densities).mean()
        for column, factor in enumerate(factors.T):
            conditional = np.empty(len(drawn))
            for value in np.unique(factor):
                rows = factor[drawn] == value
                conditional[rows] = _log_mean(log_densities[rows][:, factor == value])
            information[dim, column] = entropy + conditional.mean()
    return _gap(information, _entropies(factors))


def ssim(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]) -> Floats:
    """Return the SSIM (N,) (Wang et al. 2004) of uint8 images (N, H, W, C), with a uniform 7x7 window."""
    return np.array(
        [
            structural_similarity(image, reconstruction, channel_axis=-1, data_range=255)  # type: ignore[no-untyped-call]
            for image, reconstruction in zip(images, reconstructions, strict=True)
        ]
    )


def _gap(information: Floats, entropies: Floats) -> InformationGap:
    ordered = np.sort(information, axis=0)[::-1]
    per_factor = (ordered[0] - ordered[1]) / entropies
    return InformationGap(float(per_factor.mean()), per_factor, information, entropies)


def _entropies(factors: NDArray[np.int64]) -> Floats:
    return np.array([mutual_info_score(factor, factor) for factor in factors.T])


def _log_normal(latents: Floats, mean: Floats, logvar: Floats) -> Floats:
    density: Floats = -0.5 * (np.log(2 * np.pi) + logvar + (latents - mean) ** 2 * np.exp(-logvar))
    return density


def _log_mean(log_values: Floats) -> Floats:
    means: Floats = logsumexp(log_values, axis=1) - np.log(log_values.shape[1])
    return means
