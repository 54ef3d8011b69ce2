"""Alignment: replace a latent whose sign depends on the context, and its partner, by two consistent latents.

Such a latent is called *folded* (train/alignment/context_signs.py). The algorithm uses no labels:

    1  Find the folded latent and fit its sign and scale by context. Its partner is the latent that then shares the
       most information with it. Where no latent shares enough, a new latent is added as partner.
    2  Decode every image in one reference context, so that its picture shows only these two latents.
    3  Fit two new latents to the pictures with a small beta-TCVAE. Of several seeds the lowest objective wins. With
       one context no latent can fold, and a fit takes seconds instead of hours.
    4  Refit the network's linear layers to the new latents (train/alignment/refit_heads.py). Convolutions are kept.

Dead latents are dropped. Training then continues with the new model (Preset.folded_steps), so that the convolutions
adapt and the errors of the small model are corrected.

Step 1 only models a change of sign and scale. Other inconsistencies remain. At the end of training (Preset.second_look)
`align` compares the new latents across contexts by the edges of the decoded pictures
(train/alignment/edge_matching.py), and refits them where they disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from train.alignment import context_signs, edge_matching, refit_heads
from train.alignment.context_signs import Gauge, perceptron
from train.config.experiment import BetaTCVAE, Network
from train.information import dependence
from train.models.inference import CHUNK, encode
from train.models.vae import VAE, channels_last
from train.objectives.losses import Terms, beta_tcvae, kl_terms

IMAGES = 20_000  # training images whose latents and features are used
PROBES = 400  # pairs that tell which latent is folded
PAIRS = 16_000
PICTURES = 12_000
DEPENDENCE = 0.15  # nats from which two latents are partners; independent ones of the flagship share up to .05
CANDIDATE_PAIRS = 40  # of new latents: the best grid is rarely found
CONTEXTS = 1_000  # images among which the reference context is looked for
REACH = 2.5  # how far the folded latent is moved to see what it does there
COORDINATES = 24
NEIGHBOURS = 20
TYPICAL = 0.9  # share of images; the rest lies where the gauge failed, off every cluster
ELSEWHERE_SHARE = 0.02  # of images, that contexts disagree on, from which the pair is taught anew
LIVE_VARIANCE = 0.7  # mean posterior variance below which a latent is live
LATENT_STEPS, LATENT_BATCH = 2_600, 128
PRESSURE, PRESSURE_STEPS = 25.0, 1_200
PICTURE_WEIGHT = 10.0  # of a squared pixel, beside the KL terms: about the curvature of the full-size likelihood


@dataclass(frozen=True)
class Pair:
    """Two new latents: their encoder, (N, COORDINATES) to mean and logvar, and the objective that it reached."""

    encoder: nn.Module
    objective: float
    terms: Terms

    @torch.no_grad()
    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar, each (N, 2), of coordinates (N, COORDINATES)."""
        mean, logvar = self.encoder(coordinates).chunk(2, dim=1)
        return mean, logvar.clamp(max=0)


def unfold(
    model: VAE,
    network: Network,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    objective: BetaTCVAE,
    *,
    seed: int,
    candidates: int = CANDIDATE_PAIRS,
) -> tuple[VAE, dict[str, Any]]:
    """Return `model`, of `network`, without dead latents and with its folded latent aligned; and a report.

    Up to IMAGES of the images (N, H, W, C) uint8 at `rows` are used. Where no latent is folded, only dead latents are
    dropped. Random numbers depend on `seed` alone; the caller's random state is restored.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        drawn = np.random.default_rng(seed).choice(rows, min(IMAGES, len(rows)), replace=False)
        latents = torch.from_numpy(encode(model, images, drawn))
        kept = torch.where(latents[:, 1].exp().mean(0) < LIVE_VARIANCE)[0]
        report: dict[str, Any] = {"kept": kept.tolist(), "folded": None}
        if not len(kept):
            return model, report
        model = with_latents(model, kept, replace(network, latent_dim=len(kept)))
        mean, logvar = latents[:, :, kept].unbind(1)

        def decode(latents: Tensor) -> Tensor:
            return torch.sigmoid(model.decode(latents))

        fixed, report["mirrored_share"] = most_folded(decode, mean)
        if fixed is None:
            return model, report
        value = fixed.fixed(mean)
        partner = dependent(value, mean, [dim for dim in range(len(kept)) if dim != fixed.latent])
        if partner is None:
            partner = len(kept)
            model = with_another_latent(model, replace(network, latent_dim=partner + 1))
            mean, logvar = F.pad(mean, (0, 1)), F.pad(logvar, (0, 1))

        reference = mean[busiest(decode, mean[:CONTEXTS], fixed.latent)]
        clusters = torch.stack([value, mean[:, partner]], dim=1)
        coordinates = principal(pictures(decode, fixed, clusters, partner, reference))
        typical = is_typical(clusters)
        learnt = coordinates[torch.where(typical)[0][torch.randperm(int(typical.sum()))[:PICTURES]]]
        pairs = [new_latents(learnt, objective, seed + number) for number in range(candidates)]
        best = min(pairs, key=lambda pair: pair.objective)

        both = [fixed.latent, partner]
        new_mean, new_logvar, weight = mean.clone(), logvar.clone(), torch.ones(mean.shape)
        new_mean[:, both], new_logvar[:, both] = best.encode(coordinates)
        weight[:, both] = typical.float()[:, None]
        refit_heads.refit(model, images, drawn, new_mean, new_logvar, weight, decoded=mean)
    report |= {
        "folded": fixed.latent,
        "context": fixed.context,
        "partner": partner,
        "objectives": [pair.objective for pair in pairs],
        "total_correlation": float(best.terms.total_correlation),
    }
    return model, report


def align(
    model: VAE, images: NDArray[np.uint8], rows: NDArray[np.int64], report: dict[str, Any], *, seed: int
) -> dict[str, Any]:
    """Compare the latents that `unfold` made, given its `report`, across contexts, and refit `model` in place if
    needed.

    Return what to add to the report. `elsewhere` is the share of images whose latents differ from their reading in the
    best context. From ELSEWHERE_SHARE on the linear layers are refitted to that reading, and `aligned` is true.
    """
    if report["folded"] is None:
        return {"aligned": False}
    pair = (report["folded"], report["partner"])
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        drawn = np.random.default_rng(seed).choice(rows, min(IMAGES, len(rows)), replace=False)
        mean, logvar = torch.from_numpy(encode(model, images, drawn)).unbind(1)

        def decode(latents: Tensor) -> Tensor:
            return torch.sigmoid(model.decode(latents))

        reading = edge_matching.read(decode, mean, pair, tuple(report["context"]))
        aligned = reading.elsewhere >= ELSEWHERE_SHARE
        if aligned:
            new_mean, weight = mean.clone(), torch.ones(mean.shape)
            new_mean[:, pair] = reading.values
            weight[:, pair] = (reading.distance < reading.distance.quantile(TYPICAL)).float()[:, None]
            refit_heads.refit(model, images, drawn, new_mean, logvar, weight, decoded=mean)
    return {"aligned": aligned, "elsewhere": reading.elsewhere}


def with_latents(model: VAE, kept: Tensor, network: Network) -> VAE:
    """Return the model with the latents `kept` (d,) only; `network` has d latents. The others are fixed at 0."""
    outputs = torch.cat([kept, model.latent_dim + kept])
    state = model.state_dict()
    for name in (f"encoder.{len(model.encoder) - 1}.weight", f"encoder.{len(model.encoder) - 1}.bias"):
        state[name] = state[name][outputs]
    state["decoder.0.weight"] = state["decoder.0.weight"][:, kept]
    return _of(state, VAE(model.image_shape, network))


def with_another_latent(model: VAE, network: Network) -> VAE:
    """Return the model with one more latent, the last of `network`: mean 0, variance 1, without effect on the image."""
    state = model.state_dict()
    for name in (f"encoder.{len(model.encoder) - 1}.weight", f"encoder.{len(model.encoder) - 1}.bias"):
        mean, logvar = state[name].chunk(2)
        nothing = torch.zeros_like(mean[:1])
        state[name] = torch.cat([mean, nothing, logvar, nothing])
    state["decoder.0.weight"] = F.pad(state["decoder.0.weight"], (0, 1))
    return _of(state, VAE(model.image_shape, network))


def _of(state: dict[str, Tensor], model: VAE) -> VAE:
    model.load_state_dict(state)
    return channels_last(model).eval()


def most_folded(decode: context_signs.Decode, latents: Tensor) -> tuple[Gauge | None, list[float]]:
    """Return the fitted signs of the folded latent of latents (N, L), and every latent's mirrored share.

    Of several folded latents the one with the highest share is returned, None where there is none.
    """
    dims = list(range(latents.shape[1]))
    if len(dims) < 2:
        return None, []
    shares = [context_signs.mirrored_share(context_signs.pairs(decode, latents, dims, dim, PROBES)) for dim in dims]
    suspects = [dim for dim in dims if shares[dim] >= context_signs.MIRRORED_SHARE]
    for latent in sorted(suspects, key=lambda dim: shares[dim], reverse=True):
        try:
            return context_signs.fix(context_signs.pairs(decode, latents, dims, latent, PAIRS), latents, latent), shares
        except context_signs.NotFolded:
            continue
    return None, shares


def dependent(value: Tensor, latents: Tensor, among: list[int]) -> int | None:
    """Return the latent of (N, L) that shares the most information with `value` (N,), or None below DEPENDENCE nats."""
    shared = {dim: dependence(value.numpy(), latents[:, dim].numpy()) for dim in among}
    closest = max(among, key=lambda dim: shared[dim])
    return closest if shared[closest] >= DEPENDENCE else None


@torch.inference_mode()
def busiest(decode: context_signs.Decode, latents: Tensor, latent: int) -> int:
    """Return the row of latents (N, L) in whose context `latent` changes the pixels most."""
    low, high = latents.clone(), latents.clone()
    low[:, latent], high[:, latent] = -REACH, REACH
    moved = [
        (decode(one) - decode(other)).abs().mean((1, 2, 3))
        for one, other in zip(torch.split(low, CHUNK), torch.split(high, CHUNK), strict=True)
    ]
    return int(torch.cat(moved).argmax())


@torch.inference_mode()
def pictures(decode: context_signs.Decode, fixed: Gauge, clusters: Tensor, partner: int, reference: Tensor) -> Tensor:
    """Decode (value, partner) (N, 2) in the context of `reference` (L,).

    Return the pictures (N, pixels) at half the size, flattened.
    """
    latents = reference.repeat(len(clusters), 1)
    latents[:, partner] = clusters[:, 1]
    latents[:, fixed.latent] = fixed.folded(clusters[:, 0], latents)
    return torch.cat([F.avg_pool2d(decode(part), 2).flatten(1) for part in torch.split(latents, CHUNK)])


def principal(flat: Tensor) -> Tensor:
    """Return the principal coordinates (N, COORDINATES) of flat pictures (N, pixels), in pixel units."""
    centred = flat - flat.mean(0)
    axes = torch.linalg.eigh((centred.T @ centred).double())[1].flip(1)[:, :COORDINATES].float()
    coordinates: Tensor = centred @ (axes * torch.sign(axes.sum(0)))  # an axis has no sign of its own
    return coordinates


def is_typical(clusters: Tensor) -> Tensor:
    """Return a mask (N,) that is false for the points of (N, 2) with the most distant neighbours."""
    scaled = (clusters / clusters.std(0).clamp(min=1e-6)).numpy()
    reach = torch.from_numpy(cKDTree(scaled).query(scaled, NEIGHBOURS)[0][:, -1])
    typical: Tensor = reach < reach.quantile(TYPICAL)
    return typical


def new_latents(coordinates: Tensor, objective: BetaTCVAE, seed: int) -> Pair:
    """Fit two latents to coordinates (N, COORDINATES) with a beta-TCVAE, its pressure annealed as in the full recipe.

    The pictures fall into few kinds, and a batch holds several of each. So log q(z) is estimated from the batch as if
    the batch were the population. The objective that compares candidates is measured on larger batches.
    """
    torch.manual_seed(seed)
    unit = coordinates[:, 0].std()
    encoder, decoder = perceptron(COORDINATES, 4), perceptron(2, COORDINATES)
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
    return Pair(
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
