"""Replace a latent whose sign changes with the context by latents whose sign does not. No step uses labels.

Such a latent is called *folded*. `align_signs` runs once during training (Preset.folded_steps):

    1  find the folded latent and its sign in every context (train/alignment/context_signs.py), and its partner: the
       latent that depends most on the aligned value, or a new latent where none depends on it
    2  decode every image in one reference context, so that its picture shows only what these two latents encode
    3  fit two new latents to these pictures with a small beta-TCVAE; of several seeds the lowest objective is kept.
       There is only one context, so nothing can fold, and a fit takes seconds
    4  refit the linear layers of the network to the new latents (train/alignment/refit_heads.py). The convolutions
       stay as they are

Dead latents are dropped. Training then continues with the new model, and the convolutions adapt to it.

`realign` runs once more at the end (Preset.second_look). It detects latents whose meaning still depends on the hues
(train/alignment/edge_matching.py), which `align_signs` cannot see unless the whole latent changes its sign.
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
from train.alignment.context_signs import ContextSigns, build_mlp
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
MOVED_SHARE = 0.02  # of images, that contexts disagree on, from which the pair is taught anew
LIVE_VARIANCE = 0.7  # mean posterior variance below which a latent is live
LATENT_STEPS, LATENT_BATCH = 2_600, 128
PRESSURE, PRESSURE_STEPS = 25.0, 1_200
PICTURE_WEIGHT = 10.0  # of a squared pixel, beside the KL terms: about the curvature of the full-size likelihood


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


def align_signs(
    model: VAE,
    network: Network,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    objective: BetaTCVAE,
    *,
    seed: int,
    candidates: int = CANDIDATE_PAIRS,
) -> tuple[VAE, dict[str, Any]]:
    """Return `model` without its dead latents and with its folded latent aligned, and a report as a JSON-ready dict.

    `network` is the architecture of `model`. A sample of `rows` of images, uint8 (N, H, W, C), is used. Where no latent
    is folded, only the dead latents are dropped. Random draws depend on `seed` alone; the global state of torch's
    random generator is restored.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        drawn = np.random.default_rng(seed).choice(rows, min(IMAGES, len(rows)), replace=False)
        latents = torch.from_numpy(encode(model, images, drawn))
        live = torch.where(latents[:, 1].exp().mean(0) < LIVE_VARIANCE)[0]
        report: dict[str, Any] = {"kept": live.tolist(), "folded": None}
        if not len(live):
            return model, report
        model = keep_latents(model, live, replace(network, latent_dim=len(live)))
        mean, logvar = latents[:, :, live].unbind(1)

        def decode(latents: Tensor) -> Tensor:
            return torch.sigmoid(model.decode(latents))

        signs, report["mirrored_share"] = find_folded_latent(decode, mean)
        if signs is None:
            return model, report
        value = signs.align(mean)
        partner = find_dependent_latent(value, mean, [dim for dim in range(len(live)) if dim != signs.latent])
        if partner is None:
            partner = len(live)
            model = add_latent(model, replace(network, latent_dim=partner + 1))
            mean, logvar = F.pad(mean, (0, 1)), F.pad(logvar, (0, 1))

        reference = mean[most_responsive_row(decode, mean[:CONTEXTS], signs.latent)]
        clusters = torch.stack([value, mean[:, partner]], dim=1)
        coordinates = principal_coordinates(render_pair(decode, signs, clusters, partner, reference))
        typical = is_typical(clusters)
        learnt = coordinates[torch.where(typical)[0][torch.randperm(int(typical.sum()))[:PICTURES]]]
        pairs = [fit_pair(learnt, objective, seed + number) for number in range(candidates)]
        best = min(pairs, key=lambda pair: pair.objective)

        both = [signs.latent, partner]
        new_mean, new_logvar, weight = mean.clone(), logvar.clone(), torch.ones(mean.shape)
        new_mean[:, both], new_logvar[:, both] = best.encode(coordinates)
        weight[:, both] = typical.float()[:, None]
        refit_heads.refit(model, images, drawn, new_mean, new_logvar, weight, decoded=mean)
    report |= {
        "folded": signs.latent,
        "context": signs.context,
        "partner": partner,
        "objectives": [pair.objective for pair in pairs],
        "total_correlation": float(best.terms.total_correlation),
    }
    return model, report


def realign(
    model: VAE, images: NDArray[np.uint8], rows: NDArray[np.int64], report: dict[str, Any], *, seed: int
) -> dict[str, Any]:
    """Compare the latents of `align_signs` between contexts once more; change `model` in place where they differ.

    `report` is the one of `align_signs`. Where the pair differs between contexts for at least MOVED_SHARE of the
    images, the linear layers are refitted to the values of the best reference context. Return {"aligned": whether that
    happened, "elsewhere": the share of images that differed}.
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

        match = edge_matching.match_edges(decode, mean, pair, tuple(report["context"]))
        aligned = match.moved_share >= MOVED_SHARE
        if aligned:
            new_mean, weight = mean.clone(), torch.ones(mean.shape)
            new_mean[:, pair] = match.values
            weight[:, pair] = (match.distance < match.distance.quantile(TYPICAL)).float()[:, None]
            refit_heads.refit(model, images, drawn, new_mean, logvar, weight, decoded=mean)
    return {"aligned": aligned, "elsewhere": match.moved_share}


def keep_latents(model: VAE, live: Tensor, network: Network) -> VAE:
    """Return the model with the latents `live` (d,) only; `network` has d latents.

    The decoder computes what it computed before with the other latents at 0.
    """
    outputs = torch.cat([live, model.latent_dim + live])
    state = model.state_dict()
    for name in (f"encoder.{len(model.encoder) - 1}.weight", f"encoder.{len(model.encoder) - 1}.bias"):
        state[name] = state[name][outputs]
    state["decoder.0.weight"] = state["decoder.0.weight"][:, live]
    return _load_state(state, VAE(model.image_shape, network))


def add_latent(model: VAE, network: Network) -> VAE:
    """Return the model with one more latent, the last of `network`: mean 0, logvar 0, ignored by the decoder."""
    state = model.state_dict()
    for name in (f"encoder.{len(model.encoder) - 1}.weight", f"encoder.{len(model.encoder) - 1}.bias"):
        mean, logvar = state[name].chunk(2)
        nothing = torch.zeros_like(mean[:1])
        state[name] = torch.cat([mean, nothing, logvar, nothing])
    state["decoder.0.weight"] = F.pad(state["decoder.0.weight"], (0, 1))
    return _load_state(state, VAE(model.image_shape, network))


def _load_state(state: dict[str, Tensor], model: VAE) -> VAE:
    """Load `state` into `model`; return the model in channels-last layout and evaluation mode."""
    model.load_state_dict(state)
    return channels_last(model).eval()


def find_folded_latent(decode: context_signs.Decode, latents: Tensor) -> tuple[ContextSigns | None, list[float]]:
    """Return the signs of the folded latent of latents (N, L), and the mirrored share of every latent (L,).

    Of several folded latents the one with the largest share is returned, None where no latent is folded.
    """
    dims = list(range(latents.shape[1]))
    if len(dims) < 2:
        return None, []
    shares = [
        context_signs.mirrored_share(context_signs.sample_pairs(decode, latents, dims, dim, PROBES)) for dim in dims
    ]
    suspects = [dim for dim in dims if shares[dim] >= context_signs.MIRRORED_SHARE]
    for latent in sorted(suspects, key=lambda dim: shares[dim], reverse=True):
        try:
            return context_signs.fit_signs(
                context_signs.sample_pairs(decode, latents, dims, latent, PAIRS), latents, latent
            ), shares
        except context_signs.NotFolded:
            continue
    return None, shares


def find_dependent_latent(value: Tensor, latents: Tensor, among: list[int]) -> int | None:
    """Return the latent `among` those of (N, L) with the highest mutual information with `value` (N,).

    Return None where it is below DEPENDENCE nats.
    """
    shared = {dim: dependence(value.numpy(), latents[:, dim].numpy()) for dim in among}
    closest = max(among, key=lambda dim: shared[dim])
    return closest if shared[closest] >= DEPENDENCE else None


@torch.inference_mode()
def most_responsive_row(decode: context_signs.Decode, latents: Tensor, latent: int) -> int:
    """Return the row of latents (N, L) in whose context `latent` changes the most pixels."""
    low, high = latents.clone(), latents.clone()
    low[:, latent], high[:, latent] = -REACH, REACH
    moved = [
        (decode(one) - decode(other)).abs().mean((1, 2, 3))
        for one, other in zip(torch.split(low, CHUNK), torch.split(high, CHUNK), strict=True)
    ]
    return int(torch.cat(moved).argmax())


@torch.inference_mode()
def render_pair(
    decode: context_signs.Decode, signs: ContextSigns, clusters: Tensor, partner: int, reference: Tensor
) -> Tensor:
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


def is_typical(clusters: Tensor) -> Tensor:
    """Return (N,) bool: whether the distance of each point of (N, 2) to its NEIGHBOURS-th neighbour is below the
    TYPICAL quantile.
    """
    scaled = (clusters / clusters.std(0).clamp(min=1e-6)).numpy()
    reach = torch.from_numpy(cKDTree(scaled).query(scaled, NEIGHBOURS)[0][:, -1])
    typical: Tensor = reach < reach.quantile(TYPICAL)
    return typical


def fit_pair(coordinates: Tensor, objective: BetaTCVAE, seed: int) -> PairModel:
    """Fit two latents to coordinates (N, COORDINATES) with a beta-TCVAE whose pressure is annealed as in the full
    recipe.

    The pictures are of a few kinds, and every training batch holds several of each kind. log q(z) is therefore
    estimated with the training batch as the population. The objective that candidates are compared by is measured on
    larger batches.
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
