"""Replace a latent whose sign changes with the context by latents whose sign does not. No step uses labels.

Such a latent is called *folded*. `align_signs` runs once during training (Preset.folded_steps):

    1  find the folded latent and its sign in every context (train/alignment/context_signs.py), and its partner: the
       latent that depends most on the aligned value, or a new latent where none depends on it
    2  decode every image in one reference context, so that its picture shows only what these two latents encode
    3  fit two new latents to these pictures with a small beta-TCVAE (train/alignment/pair_model.py); the fit with the
       lowest objective over several seeds is used
    4  refit the linear layers of the network to the new latents (train/alignment/refit_heads.py). The convolutions
       stay as they are

Dead latents are dropped. Training then continues with the new model, and the convolutions adapt to it.

`realign` runs once more at the end (Preset.second_look). It detects latents whose meaning still depends on the hues
(train/alignment/edge_matching.py), which `align_signs` cannot see unless the whole latent changes its sign.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from train.alignment import context_signs, edge_matching, pair_model, refit_heads
from train.alignment.context_signs import ContextSigns
from train.config.experiment import BetaTCVAE, Network
from train.information import dependence
from train.models.inference import encode
from train.models.vae import VAE, channels_last

IMAGES = 20_000  # training images whose latents and features are used
PROBES = 400  # pairs that tell which latent is folded
PAIRS = 16_000
PICTURES = 12_000
DEPENDENCE = 0.15  # nats that partners share at least; independent latents of the shipped model share up to 0.05
CANDIDATE_PAIRS = 40  # fits of two new latents; few of them reach the best grid
CONTEXTS = 1_000  # images that may give the reference context
NEIGHBOURS = 20
TYPICAL = 0.9  # share of images that lie in a cluster; the signs are wrong for the rest
MOVED_SHARE = 0.02  # share of images that contexts disagree on, from which the pair is refitted
LIVE_VARIANCE = 0.7  # mean posterior variance below which a latent is live


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

        reference = mean[pair_model.most_responsive_row(decode, mean[:CONTEXTS], signs.latent)]
        clusters = torch.stack([value, mean[:, partner]], dim=1)
        coordinates = pair_model.principal_coordinates(
            pair_model.render_pair(decode, signs, clusters, partner, reference)
        )
        typical = is_typical(clusters)
        learnt = coordinates[torch.where(typical)[0][torch.randperm(int(typical.sum()))[:PICTURES]]]
        pairs = [pair_model.fit_pair(learnt, objective, seed + number) for number in range(candidates)]
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

    The latent with the largest share is returned where several are folded, None where none is.
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


def is_typical(clusters: Tensor) -> Tensor:
    """Return whether each point of (N, 2) lies in a cluster, (N,) bool.

    It does where the distance to its NEIGHBOURS-th neighbour is below the TYPICAL quantile.
    """
    scaled = (clusters / clusters.std(0).clamp(min=1e-6)).numpy()
    reach = torch.from_numpy(cKDTree(scaled).query(scaled, NEIGHBOURS)[0][:, -1])
    typical: Tensor = reach < reach.quantile(TYPICAL)
    return typical
