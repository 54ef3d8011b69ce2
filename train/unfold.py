"""From a run with a folded latent, a run without: new latents for what the folded one and its partner hold.

    1  the folded latent and its gauge (train/gauge.py); its partner, the latent that it then depends on most
    2  every image is decoded in one and the same context, so that its picture shows only what those two say
    3  two new latents are learnt on these pictures by a small beta-TCVAE; of several seeds the lowest objective wins.
       Here nothing can fold, since there is only one context, and a run takes seconds instead of hours
    4  the linear layers of the network learn to go from and to the new latents (train/heads.py), its convolutions stay

Latents that were idle are dropped. Nothing here looks at a label. The new run stands a little before the end of its
joint steps, whose schedule `python -m train run PRESET --resume` takes up: under the full objective the convolutions
adapt, and what the small model got wrong is mended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.metrics import mutual_info_score
from torch import Tensor, nn

from train import gauge, heads, loop
from train.data.dataset import Dataset, split
from train.evaluate import CHUNK, encode
from train.gauge import Gauge, perceptron
from train.losses import Terms, beta_tcvae, kl_terms
from train.metrics import BINS
from train.networks import VAE
from train.provenance import commit
from train.recipe import BetaTCVAE, Network, Preset, from_record, record_of

IMAGES = 20_000  # training images whose latents and features are used
PROBES = 400  # pairs that tell which latent is folded
PAIRS = 16_000
PICTURES = 12_000
CANDIDATES = 1_000  # images among which the reference context is looked for
REACH = 2.5  # how far the folded latent is moved to see what it does there
COORDINATES = 24
NEIGHBOURS = 20
TYPICAL = 0.9  # share of images; the rest lies where the gauge failed, off every cluster
LIVE_VARIANCE = 0.7  # mean posterior variance below which a latent is live
LATENT_STEPS, LATENT_BATCH = 2_600, 128
PRESSURE, PRESSURE_STEPS = 25.0, 1_200
PICTURE_WEIGHT = 10.0  # of a squared pixel, beside the KL terms: about the curvature of the full-size likelihood
REJOIN = 0.8  # share of the joint steps at which the new run stands


@dataclass(frozen=True)
class Pair:
    """Two new latents of pictures: their encoder, (N, COORDINATES) -> mean and logvar, and what it reached."""

    encoder: nn.Module
    objective: float
    terms: Terms

    @torch.no_grad()
    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.encoder(coordinates).chunk(2, dim=1)
        return mean, logvar.clamp(max=0)


def unfold(directory: Path, dataset: Dataset, out: Path, *, seeds: int = 40, seed: int = 0) -> dict[str, Any]:
    """Write to `out` the run of `directory` with its folded latent unfolded; what was found on the way is returned.

    Raises FileExistsError where `out` holds a run, ValueError where no latent is folded or the objective is another.
    """
    if (out / "checkpoint.pt").exists():
        raise FileExistsError(f"{out} already holds a run: choose another --out")
    config, model = loop.load_config(directory), loop.load_model(directory)
    preset = from_record(config["preset"])
    objective = preset.objective
    if not isinstance(objective, BetaTCVAE):
        raise ValueError(f"{preset.name} is trained by another objective than beta-TCVAE, which learns the new latents")
    torch.manual_seed(seed)
    rows = np.random.default_rng(seed).choice(split(len(dataset.images)).train, IMAGES, replace=False)
    latents = torch.from_numpy(encode(model, dataset.images, rows))
    kept = torch.where(latents[:, 1].exp().mean(0) < LIVE_VARIANCE)[0]
    preset = replace(preset, network=replace(preset.network, latent_dim=len(kept)))
    model = with_latents(model, kept, preset.network)
    mean, logvar = latents[:, :, kept].unbind(1)
    live = list(range(len(kept)))

    def decode(latents: Tensor) -> Tensor:
        return torch.sigmoid(model.decode(latents))

    shares = {dim: gauge.mirrored_share(gauge.pairs(decode, mean, live, dim, PROBES)) for dim in live}
    folded = max(shares, key=lambda dim: shares[dim])
    fixed = gauge.fix(gauge.pairs(decode, mean, live, folded, PAIRS), mean, folded)
    value = fixed.fixed(mean)
    partner = dependent(value, mean, [dim for dim in live if dim != folded])

    reference = mean[busiest(decode, mean[:CANDIDATES], folded)]
    clusters = torch.stack([value, mean[:, partner]], dim=1)
    coordinates = principal(pictures(decode, fixed, clusters, partner, reference))
    typical = is_typical(clusters)
    learnt = coordinates[torch.where(typical)[0][torch.randperm(int(typical.sum()))[:PICTURES]]]
    candidates = [new_latents(learnt, objective, seed + number) for number in range(seeds)]
    best = min(candidates, key=lambda pair: pair.objective)

    new_mean, new_logvar = mean.clone(), logvar.clone()
    new_mean[:, [folded, partner]], new_logvar[:, [folded, partner]] = best.encode(coordinates)
    weight = torch.ones(mean.shape)
    weight[:, [folded, partner]] = typical.float()[:, None]
    features = heads.features_of(model, dataset.images, rows)
    old_hidden = heads.head_of(model.decoder)
    with torch.inference_mode():
        hidden = torch.cat([old_hidden(part) for part in torch.split(mean, CHUNK)])
    heads.refit_encoder(model, features, new_mean, new_logvar, weight)
    heads.refit_decoder(model, features, hidden)

    report = {
        "preset": preset.name,
        "seed": config["seed"],
        "mirrored_share": shares,
        "folded": folded,
        "partner": partner,
        "context": fixed.context,
        "objectives": [pair.objective for pair in candidates],
        "total_correlation": float(best.terms.total_correlation),
        "kept": kept.tolist(),
    }
    _write(out, model, preset, config, report)
    return report


def with_latents(model: VAE, kept: Tensor, network: Network) -> VAE:
    """The model with the latents `kept` (d,) alone; `network` has d. What the decoder made of the others at 0 stays."""
    smaller = VAE(model.image_shape, network)
    outputs = torch.cat([kept, model.latent_dim + kept])
    state = model.state_dict()
    for name in (f"encoder.{len(model.encoder) - 1}.weight", f"encoder.{len(model.encoder) - 1}.bias"):
        state[name] = state[name][outputs]
    state["decoder.0.weight"] = state["decoder.0.weight"][:, kept]
    smaller.load_state_dict(state)
    return smaller.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def dependent(value: Tensor, latents: Tensor, among: list[int]) -> int:
    """The latent of (N, L) that shares most information with `value` (N,), both cut into equal bins."""

    def binned(column: Tensor) -> NDArray[np.intp]:
        bins: NDArray[np.intp] = np.digitize(column.numpy(), np.histogram_bin_edges(column.numpy(), BINS)[1:-1])
        return bins

    return max(among, key=lambda dim: mutual_info_score(binned(value), binned(latents[:, dim])))


@torch.inference_mode()
def busiest(decode: gauge.Decode, latents: Tensor, latent: int) -> int:
    """The row of latents (N, L) in whose context `latent` moves the most pixels."""
    low, high = latents.clone(), latents.clone()
    low[:, latent], high[:, latent] = -REACH, REACH
    moved = [
        (decode(one) - decode(other)).abs().mean((1, 2, 3))
        for one, other in zip(torch.split(low, CHUNK), torch.split(high, CHUNK), strict=True)
    ]
    return int(torch.cat(moved).argmax())


@torch.inference_mode()
def pictures(decode: gauge.Decode, fixed: Gauge, clusters: Tensor, partner: int, reference: Tensor) -> Tensor:
    """(N, pixels) of half the size: what (value, partner) (N, 2) look like in the context of `reference` (L,)."""
    latents = reference.repeat(len(clusters), 1)
    latents[:, partner] = clusters[:, 1]
    latents[:, fixed.latent] = fixed.folded(clusters[:, 0], latents)
    return torch.cat([F.avg_pool2d(decode(part), 2).flatten(1) for part in torch.split(latents, CHUNK)])


def principal(flat: Tensor) -> Tensor:
    """(N, COORDINATES) principal coordinates of flat pictures (N, pixels), in pixel units."""
    centred = flat - flat.mean(0)
    axes = torch.linalg.eigh((centred.T @ centred).double())[1].flip(1)[:, :COORDINATES].float()
    coordinates: Tensor = centred @ (axes * torch.sign(axes.sum(0)))  # an axis has no sign of its own
    return coordinates


def is_typical(clusters: Tensor) -> Tensor:
    """(N,) bool: not among the points of (N, 2) whose neighbours are furthest."""
    scaled = (clusters / clusters.std(0)).numpy()
    reach = torch.from_numpy(cKDTree(scaled).query(scaled, NEIGHBOURS)[0][:, -1])
    typical: Tensor = reach < reach.quantile(TYPICAL)
    return typical


def new_latents(coordinates: Tensor, objective: BetaTCVAE, seed: int) -> Pair:
    """Two latents of coordinates (N, COORDINATES) by beta-TCVAE, its pressure annealed as in the full recipe.

    The pictures come in few kinds, of which a batch holds several of each: log q(z) is estimated from the batch
    as if it were the population. The objective that candidates are compared by is taken on larger batches.
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


def _write(out: Path, model: VAE, preset: Preset, config: dict[str, Any], report: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    record = {**config, "preset": record_of(preset), "unfolded": report, "commit": commit()}
    (out / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    (out / "metrics.jsonl").write_text("")
    step = max(round(REJOIN * preset.steps), preset.narrow_steps + 1)
    loop.save(out, model, loop.optimizer_of(model, preset), step)


class _Divide(nn.Module):
    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, values: Tensor) -> Tensor:
        return values / self.unit
