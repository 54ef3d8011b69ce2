"""Training objectives: pure functions from tensors to named terms, all in nats per image, and from terms to a loss.

    VAE, beta-VAE   reconstruction_nll + beta * kl
    capacity VAE    reconstruction_nll + gamma * |kl - capacity|
    beta-TCVAE      reconstruction_nll + alpha * mutual_information + beta * total_correlation
                    + gamma * dimension_wise_kl

The first three know the KL in closed form; beta-TCVAE estimates its parts from a sample.

The evidence lower bound splits as (Hoffman & Johnson 2016; Chen et al. 2018, eq. 2)

    KL(q(z|x) || p(z))  =  I(x; z)  +  KL(q(z) || prod_l q(z_l))  +  sum_l KL(q(z_l) || p(z_l))
                           mutual      total                         dimension-wise
                           information correlation                   KL

averaged over the data, with q(z) the aggregate posterior over all N training images. Only a training batch of M is
at hand, so log q(z) is estimated by weighting the batch's posteriors.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
# SSIM's window, and its constants for values in [0, 1].
WINDOW, C1, C2 = 7, 0.01**2, 0.03**2


class KLTerms(NamedTuple):
    """Scalars, nats per image, averaged over the training batch."""

    reconstruction_nll: Tensor
    kl: Tensor


class Terms(NamedTuple):
    """The same with the KL in three parts, which add up to it."""

    reconstruction_nll: Tensor
    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


def reconstruction_nll(logits: Tensor, images: Tensor) -> Tensor:
    """Bernoulli cross-entropy summed over pixels, mean over the batch; both (M, C, H, W), images in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)


def structural_similarity(images: Tensor, reconstructions: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, eq. 13) of images in [0, 1], both (M, C, H, W), mean over all windows and the batch.

    Windows are 7x7 and uniform, channels stand each for itself, (co)variances are the samples': as
    `train.evaluation.mig.ssim` measures it. Raises ValueError where a side is shorter than a window.
    """
    height, width = images.shape[2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"images of {height}x{width} are smaller than SSIM's window of {WINDOW}x{WINDOW}")
    down, across = (_windows(side, images) for side in (height, width))

    def mean_of(values: Tensor) -> Tensor:
        return down @ values @ across.T

    centre, drawn_centre = mean_of(images), mean_of(reconstructions)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    variance = unbiased * (mean_of(images.square()) - centre.square())
    drawn_variance = unbiased * (mean_of(reconstructions.square()) - drawn_centre.square())
    covariance = unbiased * (mean_of(images * reconstructions) - centre * drawn_centre)
    luminance = (2 * centre * drawn_centre + C1) / (centre.square() + drawn_centre.square() + C1)
    return (luminance * (2 * covariance + C2) / (variance + drawn_variance + C2)).mean()


def _windows(side: int, like: Tensor) -> Tensor:
    """(side - WINDOW + 1, side): each row averages one window. As a matrix that takes a quarter of pooling's time."""
    starts = torch.arange(side - WINDOW + 1, device=like.device)[:, None]
    offsets = torch.arange(side, device=like.device) - starts
    return ((offsets >= 0) & (offsets < WINDOW)).to(like.dtype) / WINDOW


def kl_to_prior(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) of every latent (L,), mean over the batch; mean and logvar (M, L).

    Kingma & Welling 2014, appendix B. Its sum over the latents is the KL of the objectives.
    """
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1).mean(0)


def log_normal(latents: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Elementwise log N(latents; mean, exp(logvar)); arguments broadcast."""
    return -0.5 * (LOG_2PI + logvar + (latents - mean).square() * torch.exp(-logvar))


def log_importance_weights(
    batch: int, population: int, estimator: Literal["stratified", "weighted"], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(M, M) log weights w_ij with which q(z_i) = sum_j w_ij q(z_i | x_j) is estimated from a training batch.

    weighted    1 / (N M) everywhere: minibatch-weighted sampling (Chen et al. 2018, appendix C.1); biased.
    stratified  1 / N on the diagonal, since x_i is known to have produced z_i, and (N - 1) / (N (M - 1)) off it:
                each row sums to 1. This is the average of their appendix C.2 over which of the batch's other
                images takes the odd weight, so it is as unbiased and does not depend on the batch's order.
    """
    if estimator == "weighted":
        return torch.full((batch, batch), -math.log(population * batch), dtype=dtype)
    others = math.log((population - 1) / (population * (batch - 1)))
    return torch.full((batch, batch), others, dtype=dtype).fill_diagonal_(-math.log(population))


def kl_terms(
    latents: Tensor,
    mean: Tensor,
    logvar: Tensor,
    population: int,
    estimator: Literal["stratified", "weighted"] = "stratified",
) -> tuple[Tensor, Tensor, Tensor]:
    """Mutual information, total correlation and dimension-wise KL of a training batch.

    latents, mean, logvar are (M, L), latents drawn from the posterior; population is the number N of training
    images. The three telescope: their sum is the mean of log q(z|x) - log p(z), whatever the estimator.
    """
    log_q_latents_given_image = log_normal(latents, mean, logvar).sum(1)  # (M,)
    log_prior = log_normal(latents, torch.zeros_like(mean), torch.zeros_like(mean)).sum(1)
    pairs = log_normal(latents[:, None], mean[None], logvar[None])  # (M, M, L): log q(z_i,l | x_j)
    weights = log_importance_weights(len(latents), population, estimator, latents.dtype)
    log_q_latents = torch.logsumexp(pairs.sum(2) + weights, dim=1)  # (M,)
    log_q_product = torch.logsumexp(pairs + weights[..., None], dim=1).sum(1)
    return (
        (log_q_latents_given_image - log_q_latents).mean(),
        (log_q_latents - log_q_product).mean(),
        (log_q_product - log_prior).mean(),
    )


def beta_vae(terms: KLTerms, beta: float) -> Tensor:
    """The beta-VAE objective (Higgins et al. 2017, eq. 4), to be minimised; the negative ELBO where beta is 1."""
    return terms.reconstruction_nll + beta * terms.kl


def capacity_vae(terms: KLTerms, gamma: float, capacity: float) -> Tensor:
    """The capacity objective (Burgess et al. 2018, eq. 8), to be minimised; the capacity in nats per image."""
    return terms.reconstruction_nll + gamma * (terms.kl - capacity).abs()


def beta_tcvae(terms: Terms, alpha: float, beta: float, gamma: float) -> Tensor:
    """The beta-TCVAE objective (Chen et al. 2018, eq. 4), to be minimised."""
    return (
        terms.reconstruction_nll
        + alpha * terms.mutual_information
        + beta * terms.total_correlation
        + gamma * terms.dimension_wise_kl
    )
