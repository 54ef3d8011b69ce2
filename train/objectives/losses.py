"""Training objectives: pure functions from tensors to named terms, in nats per image, and from terms to a loss.

    VAE, beta-VAE   reconstruction_nll + beta * kl
    capacity VAE    reconstruction_nll + gamma * |kl - capacity|
    beta-TCVAE      reconstruction_nll + alpha * mutual_information + beta * total_correlation
                    + gamma * dimension_wise_kl

The VAE, the beta-VAE and the capacity VAE use the closed form of the KL. The beta-TCVAE estimates the three parts of
the KL from a sample.

The KL term of the evidence lower bound splits as (Hoffman & Johnson 2016; Chen et al. 2018, eq. 2)

    KL(q(z|x) || p(z))  =  I(x; z)  +  KL(q(z) || prod_l q(z_l))  +  sum_l KL(q(z_l) || p(z_l))
                           mutual      total                         dimension-wise
                           information correlation                   KL

averaged over the data. q(z) is the aggregate posterior over all N training images. A step sees only a training batch of
M images, so log q(z) is estimated from weighted posteriors of that batch.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


class KLTerms(NamedTuple):
    """The reconstruction term and the KL: scalars in nats per image, averaged over the training batch."""

    reconstruction_nll: Tensor
    kl: Tensor


class Terms(NamedTuple):
    """The reconstruction term and the three parts of the KL: scalars in nats per image, averaged over the training
    batch.
    """

    reconstruction_nll: Tensor
    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


def reconstruction_nll(logits: Tensor, images: Tensor) -> Tensor:
    """Return the Bernoulli cross-entropy, summed over pixels and averaged over the batch.

    `logits` and `images` are (M, C, H, W), the images in [0, 1].
    """
    return F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)


def kl_to_prior(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(q(z|x) || N(0, 1)) of every latent (L,), averaged over the batch; mean and logvar are (M, L).

    See Kingma & Welling 2014, appendix B. The sum over the latents is the KL of the objectives.
    """
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1).mean(0)


def log_normal(latents: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return log N(latents; mean, exp(logvar)) elementwise. The arguments broadcast."""
    return -0.5 * (LOG_2PI + logvar + (latents - mean).square() * torch.exp(-logvar))


def log_importance_weights(
    batch: int, population: int, estimator: Literal["stratified", "weighted"], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return log weights (M, M) w_ij of the estimate q(z_i) = sum_j w_ij q(z_i | x_j) from a training batch.

    weighted    1 / (N M) everywhere: minibatch-weighted sampling (Chen et al. 2018, appendix C.1); biased.
    stratified  1 / N on the diagonal, since x_i is known to have produced z_i, and (N - 1) / (N (M - 1)) off it.
                Each row sums to 1. This is the average of the paper's appendix C.2 over the choice of the image
                with the odd weight. It is unbiased as well, and independent of the batch's order.
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
    """Return mutual information, total correlation and dimension-wise KL of a training batch.

    `latents`, `mean` and `logvar` are (M, L), the latents drawn from the posterior. `population` is the number N of
    training images. The three terms telescope: with either estimator their sum is the mean of log q(z|x) - log p(z).
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
    """Return the beta-VAE loss (Higgins et al. 2017, eq. 4). With beta 1 it is the negative ELBO."""
    return terms.reconstruction_nll + beta * terms.kl


def capacity_vae(terms: KLTerms, gamma: float, capacity: float) -> Tensor:
    """Return the capacity loss (Burgess et al. 2018, eq. 8); `capacity` is in nats per image."""
    return terms.reconstruction_nll + gamma * (terms.kl - capacity).abs()


def beta_tcvae(terms: Terms, alpha: float, beta: float, gamma: float) -> Tensor:
    """Return the beta-TCVAE loss (Chen et al. 2018, eq. 4)."""
    return (
        terms.reconstruction_nll
        + alpha * terms.mutual_information
        + beta * terms.total_correlation
        + gamma * terms.dimension_wise_kl
    )
