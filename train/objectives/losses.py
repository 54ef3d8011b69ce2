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
