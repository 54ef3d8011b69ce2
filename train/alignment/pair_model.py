"""Pictures of a pair of latents in one reference context, and the fit of two new latents to them.

There is only one context, so no latent can fold, and a fit takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.alignment.context_signs import ContextSigns, Decode, build_mlp
from train.config.experiment import BetaTCVAE
from train.models.inference import CHUNK
from train.objectives.losses import Terms, beta_tcvae, kl_terms

REACH = 2.5  # the folded latent is moved by so much, to measure its effect
COORDINATES = 24
LATENT_STEPS, LATENT_BATCH = 2_600, 128
PRESSURE, PRESSURE_STEPS = 25.0, 1_200
PICTURE_WEIGHT = 10.0  # of a squared pixel against the KL terms: about the curvature of the full-size likelihood


@dataclass(frozen=True)
class PairModel:
    """Two new latents of pictures.

    encoder    (N, COORDINATES) -> mean and logvar, (N, 4)
    objective  beta-TCVAE objective that the fit reached, nats per image
    terms      terms of that objective
    """

    encoder: nn.Module
    objective: float
    terms: Terms

    @torch.no_grad()
    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (N, 2) of coordinates (N, COORDINATES). logvar is at most 0."""
        mean, logvar = self.encoder(coordinates).chunk(2, dim=1)
        return mean, logvar.clamp(max=0)


@torch.inference_mode()
def most_responsive_row(decode: Decode, latents: Tensor, latent: int) -> int:
    """Return the row of latents (N, L) in whose context `latent` changes the most pixels."""
    low, high = latents.clone(), latents.clone()
    low[:, latent], high[:, latent] = -REACH, REACH
    moved = [
        (decode(one) - decode(other)).abs().mean((1, 2, 3))
        for one, other in zip(torch.split(low, CHUNK), torch.split(high, CHUNK), strict=True)
    ]
    return int(torch.cat(moved).argmax())


@torch.inference_mode()
def render_pair(decode: Decode, signs: ContextSigns, clusters: Tensor, partner: int, reference: Tensor) -> Tensor:
    """Return the pictures (N, pixels), at half the size, of the aligned pair `clusters` (N, 2) in one context.

    The columns of `clusters` are the aligned value and the partner; the context is that of `reference` (L,).
    """
    latents = reference.repeat(len(clusters), 1)
    latents[:, partner] = clusters[:, 1]
    latents[:, signs.latent] = signs.unalign(clusters[:, 0], latents)
    return torch.cat([F.avg_pool2d(decode(part), 2).flatten(1) for part in torch.split(latents, CHUNK)])


def principal_coordinates(flat: Tensor) -> Tensor:
    """Return the first COORDINATES principal coordinates of flat pictures (N, pixels), in pixel units."""
    centred = flat - flat.mean(0)
    axes = torch.linalg.eigh((centred.T @ centred).double())[1].flip(1)[:, :COORDINATES].float()
    coordinates: Tensor = centred @ (axes * torch.sign(axes.sum(0)))  # an axis has no sign of its own
    return coordinates


def fit_pair(coordinates: Tensor, objective: BetaTCVAE, seed: int) -> PairModel:
    """Fit two latents to coordinates (N, COORDINATES) with a beta-TCVAE.

    The pressure is annealed as in the full recipe. The pictures are of a few kinds, and every training batch holds
    several of each kind. log q(z) is therefore estimated with the training batch as the population. The objective that
    candidates are compared by is measured on larger batches.
    """
    torch.manual_seed(seed)
    unit = coordinates[:, 0].std()
    encoder, decoder = build_mlp(COORDINATES, 4), build_mlp(2, COORDINATES)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, LATENT_STEPS, pct_start=0.1)

    def loss_on(count: int, pressure: float) -> tuple[Tensor, Terms]:
        drawn = coordinates[torch.randint(len(coordinates), (count,))]
        mean, logvar = encoder(drawn / unit).chunk(2, dim=1)
        latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        misfit = PICTURE_WEIGHT * (decoder(latents) * unit - drawn).square().sum() / count
        terms = Terms(misfit, *kl_terms(latents, mean, logvar, count))
        weights = (pressure * weight for weight in (objective.alpha, objective.beta, objective.gamma))
        return beta_tcvae(terms, *weights), terms

    for step in range(LATENT_STEPS):
        loss, _ = loss_on(LATENT_BATCH, PRESSURE ** max(0.0, 1 - step / PRESSURE_STEPS))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1_000.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        measured = [loss_on(1_500, 1.0) for _ in range(8)]
    return PairModel(
        nn.Sequential(_Divide(float(unit)), encoder),
        float(torch.stack([loss for loss, _ in measured]).mean()),
        Terms(*(torch.stack(column).mean() for column in zip(*(terms for _, terms in measured), strict=True))),
    )


class _Divide(nn.Module):
    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, values: Tensor) -> Tensor:
        return values / self.unit
