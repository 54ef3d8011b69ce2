"""A preset's objective at one training step: its terms, their weights and the loss."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from train.config.experiment import BetaTCVAE, BetaVAE, CapacityVAE, Objective
from train.objectives.losses import (
    KLTerms,
    Terms,
    beta_tcvae,
    beta_vae,
    capacity_vae,
    kl_terms,
    kl_to_prior,
    reconstruction_nll,
)


class ForwardPass(NamedTuple):
    """The tensors of one forward pass of a training batch of M images.

    `images` and `logits` are (M, C, H, W). `latents`, `mean` and `logvar` are (M, L), the latents drawn from the
    posterior.
    """

    images: Tensor
    logits: Tensor
    latents: Tensor
    mean: Tensor
    logvar: Tensor


def compute_loss(
    objective: Objective, through: ForwardPass, population: int, step: int
) -> tuple[Tensor, KLTerms | Terms, dict[str, float]]:
    """Return the loss at `step`, its terms, and their weights at that step.

    `population` is the number of training images.
    """
    images, logits, latents, mean, logvar = through
    weights = weights_at(objective, step)
    nll = reconstruction_nll(logits, images)
    match objective:
        case BetaVAE():
            terms = KLTerms(nll, kl_to_prior(mean, logvar).sum())
            return beta_vae(terms, **weights), terms, weights
        case CapacityVAE():
            terms = KLTerms(nll, kl_to_prior(mean, logvar).sum())
            return capacity_vae(terms, **weights), terms, weights
        case BetaTCVAE():
            parts = Terms(nll, *kl_terms(latents, mean, logvar, population, objective.estimator))
            return beta_tcvae(parts, **weights), parts, weights


def weights_at(objective: Objective, step: int) -> dict[str, float]:
    """Return the weights of the terms and the capacity at `step`, by the parameter names of the loss functions."""
    match objective:
        case BetaVAE():
            return {"beta": objective.beta}
        case CapacityVAE():
            grown = min(1.0, step / objective.capacity_steps)
            gamma = objective.gamma
            if objective.final_gamma is not None:
                fallen = min(1.0, max(0.0, (step - objective.capacity_steps) / objective.decay_steps))
                gamma += (objective.final_gamma - gamma) * fallen
            return {"gamma": gamma, "capacity": objective.capacity * grown}
        case BetaTCVAE():
            pressure = 1.0
            if objective.pressure_steps:
                pressure = objective.pressure ** max(0.0, 1 - step / objective.pressure_steps)
            opening = min(1.0, step / objective.gamma_steps) if objective.gamma_steps else 1.0
            return {
                "alpha": objective.alpha * pressure,
                "beta": objective.beta * pressure,
                "gamma": objective.gamma * pressure * opening,
            }
