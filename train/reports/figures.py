"""The figures of a run, as PNG files in its `figures` directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.bundle.population_file import from_npz
from service.core.detect.scoring import score
from service.core.population import Population
from train.benchmarks.contexts import SEED_CASE_OUTLIERS, SEED_CASE_SIZE, FloatArray, IntArray, sample_seed_case
from train.data.dataset import Dataset, split
from train.models.inference import decode, encode
from train.models.vae import VAE
from train.training.checkpoint import load_config, load_model

matplotlib.use("Agg")
DPI = 80
RECONSTRUCTIONS = 10
TRAVERSAL_STEPS = 11
DENSITY_CONTEXTS = 100
ORDINARY_OF = 2_000  # held-out images, one of which traversals begin at
MORPH_STEPS = 10
# The two labels of the interpolations, by data set.
MORPHS = {"mnist": ((9, 4), (3, 8), (1, 7))}
KL_TERMS = ("kl", "mutual_information", "total_correlation", "dimension_wise_kl")
WEIGHTS = ("alpha", "beta", "gamma")
TRAVERSAL_REACH = 2.0  # standard deviations of the population to either side


def draw(directory: Path, dataset: Dataset) -> list[Path]:
    """Draw every figure of the run in `directory` and return the files written.

    The mutual information matrix needs one in `evaluation.json`; morphs are drawn for the data sets in MORPHS.
    """
    output = directory / "figures"
    output.mkdir(exist_ok=True)
    model, config = load_model(directory), load_config(directory)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rows = np.sort(split(len(dataset.images)).test[:RECONSTRUCTIONS])
    originals = dataset.images[rows]
    mean = encode(model, dataset.images, rows)[:, 0]
    start = _find_ordinary(encode(model, dataset.images, split(len(dataset.images)).test[:ORDINARY_OF])[:, 0])
    evaluation = json.loads((directory / "evaluation.json").read_text())
    population = from_npz((directory / "population.npz").read_bytes(), model.latent_dim)

    title = f"{config['preset']['name']}, seed {config['seed']}"
    figures = {
        "losses": plot_losses(records, title),
        "reconstructions": plot_reconstructions(originals, decode(model, mean), title),
        "traversals": plot_image_grid(
            [decode(model, latents) for latents in traverse_latents(start, population)],
            [f"latent {dim}" for dim in range(model.latent_dim)],
            f"{title}: each latent over ±{TRAVERSAL_REACH:g} sd of the population",
        ),
    }
    if pairs := MORPHS.get(dataset.name):
        figures["morphs"] = _plot_morphs(model, dataset, pairs, title)
    if evaluation["factors"]:
        figures["mutual_information"] = plot_mutual_information(evaluation, title)
    return save(figures, output)


def save(figures: dict[str, Figure], output: Path) -> list[Path]:
    """Write each figure as `output`/NAME.png, close it, and return the files written."""
    paths = []
    for name, figure in figures.items():
        paths.append(output / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI, bbox_inches="tight", pil_kwargs={"optimize": True})
        plt.close(figure)
    return paths


def draw_seed_case(
    latents: FloatArray, factors: IntArray, population: Population, seed: int, model: str, output: Path
) -> list[Path]:
    """Draw the scores of the seed's case, of one draw and of many, into `output`. Return the files written."""
    rng = np.random.default_rng(seed)
    contexts = [sample_seed_case(factors, rng) for _ in range(DENSITY_CONTEXTS)]
    scored = [score(latents[context.rows], population).outlier_score for context in contexts]
    title = f"{model}: {SEED_CASE_OUTLIERS} outliers among {SEED_CASE_SIZE} images"
    figures = {
        "seed_case_scores": plot_score_line(scored[0], contexts[0].is_outlier, title),
        "seed_case_density": plot_score_density(
            np.concatenate(scored), np.concatenate([context.is_outlier for context in contexts]), title
        ),
    }
    return save(figures, output)


def plot_score_line(scores: FloatArray, is_outlier: NDArray[np.bool_], title: str) -> Figure:
    """Plot the scores (n,) of one context, its outliers last."""
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    order = np.argsort(is_outlier, kind="stable")
    first = int((~is_outlier).sum())
    axis.plot(np.arange(len(scores)), scores[order], linewidth=1)
    axis.axvspan(first - 0.5, len(scores) - 0.5, color="tab:red", alpha=0.15, label="outliers")
    axis.axhline(0, color="grey", linewidth=1, linestyle="--", label="flagged above")
    axis.set_xlabel("image")
    axis.set_ylabel("outlier score, log odds")
    axis.legend()
    axis.set_title(title)
    return figure


def plot_score_density(scores: FloatArray, is_outlier: NDArray[np.bool_], title: str) -> Figure:
    """Plot the distributions of the scores (n,) of inliers and of outliers."""
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    # A few outliers are so far out that a linear scale would leave everything else in one bar.
    bent = np.arcsinh(scores)
    edges = np.linspace(bent.min(), bent.max(), 80).tolist()
    for label, rows in (("inliers", ~is_outlier), ("outliers", is_outlier)):
        axis.hist(bent[rows], edges, density=True, alpha=0.6, label=f"{rows.sum():,} {label}")
    ticks = [tick for tick in (-1e3, -100, -10, 0, 10, 100, 1e3, 1e4) if scores.min() <= tick <= scores.max()]
    axis.set_xticks(np.arcsinh(ticks), [f"{tick:g}" for tick in ticks])
    axis.set_xlabel("outlier score, log odds")
    axis.set_ylabel("density")
    axis.legend()
    axis.set_title(title)
    return figure


def plot_losses(records: list[dict[str, Any]], title: str) -> Figure:
    """Plot the objective's terms and the negative ELBO over the steps, in nats per image."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharex=True, layout="constrained")
    steps = [record["step"] for record in records]
    parts = [name for name in KL_TERMS if name in records[0]]

    def curve(name: str) -> list[float]:
        return [record[name] for record in records]

    kl = {name.replace("_", " "): curve(name) for name in (*parts, "capacity") if name in records[0]}
    panels = [
        ("reconstruction nll", {"": curve("reconstruction_nll")}),
        ("ELBO", {"": [-record["reconstruction_nll"] - sum(record[name] for name in parts) for record in records]}),
        ("KL terms" if len(kl) > 1 else "KL", kl),
        ("weights of the terms", {name: curve(name) for name in WEIGHTS if name in records[0]}),
    ]
    for axis, (name, curves) in zip(axes.flat, panels, strict=True):
        for label, values in curves.items():
            axis.plot(steps, values, label=label, linewidth=1)
        axis.set_title(name)
        axis.grid(alpha=0.3)
        if "" in curves:
            tail = np.sort(curves[""])
            low, high = tail[len(tail) // 50], tail[-1 - len(tail) // 50]  # the first steps would flatten the rest
            if high > low:
                axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        else:
            axis.legend()
    for axis in axes[1]:
        axis.set_xlabel("step")
    figure.suptitle(f"{title}: nats per image")
    return figure


def plot_reconstructions(originals: NDArray[np.uint8], decoded: NDArray[np.uint8], title: str) -> Figure:
    """Show images above their reconstructions, both uint8 (N, H, W, C)."""
    return plot_image_grid([originals, decoded], ["image", "decoded"], f"{title}: held-out images, reconstructed")


def traverse_latents(mean: NDArray[np.float32], population: Population) -> list[NDArray[np.float32]]:
    """Return for every latent (TRAVERSAL_STEPS, L): copies of mean (L,) in which that latent alone varies."""
    reach = TRAVERSAL_REACH * np.sqrt(np.diag(population.covariance))
    rows = []
    for dim in range(len(mean)):
        latents = np.repeat(mean[None], TRAVERSAL_STEPS, axis=0).astype(np.float32)
        latents[:, dim] = population.location[dim] + np.linspace(-reach[dim], reach[dim], TRAVERSAL_STEPS)
        rows.append(latents)
    return rows


def _plot_morphs(model: VAE, dataset: Dataset, pairs: tuple[tuple[int, int], ...], title: str) -> Figure:
    """Show linear interpolations from a typical held-out image of one label to one of another."""
    assert dataset.labels is not None, "data sets with MORPHS have labels"
    rows = split(len(dataset.images)).test
    means, labels = encode(model, dataset.images, rows)[:, 0], dataset.labels[rows]
    share = np.linspace(0, 1, MORPH_STEPS, dtype=np.float32)[:, None]
    ways = [
        (1 - share) * _find_typical(means[labels == a]) + share * _find_typical(means[labels == b]) for a, b in pairs
    ]
    names = [f"{dataset.label_names[a]} to {dataset.label_names[b]}" for a, b in pairs]
    return plot_image_grid([decode(model, way) for way in ways], names, f"{title}: morphs")


def _find_typical(means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the row of means (n, L) that is nearest to their centre."""
    nearest: NDArray[np.float32] = means[np.square(means - means.mean(axis=0)).sum(axis=1).argmin()]
    return nearest


def _find_ordinary(means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the row of means (n, L) at the median distance from their centre.

    The nearest row shows less. On MNIST it is a one, which hardly changes with most latents.
    """
    distance = np.square(means - means.mean(axis=0)).sum(axis=1)
    ordinary: NDArray[np.float32] = means[np.argsort(distance)[len(means) // 2]]
    return ordinary


def plot_image_grid(rows: list[NDArray[np.uint8]], labels: list[str], title: str) -> Figure:
    """Show a labelled row of images for each (N, H, W, C) of `rows`."""
    figure, axes = plt.subplots(len(rows), figsize=(len(rows[0]), 1.05 * len(rows)), layout="constrained")
    for axis, images, label in zip(np.atleast_1d(axes), rows, labels, strict=True):
        strip = np.concatenate(list(images), axis=1)
        axis.imshow(strip.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(title)
    return figure


def plot_mutual_information(evaluation: dict[str, Any], title: str) -> Figure:
    """Show the mutual information of latents and factors, as a share of the factor's entropy."""
    share = np.array(evaluation["mutual_information"]) / np.array(evaluation["factor_entropy"])
    figure, axis = plt.subplots(figsize=(1.1 * share.shape[1] + 2, 0.45 * share.shape[0] + 1.5), layout="constrained")
    image = axis.imshow(share, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (dim, factor), value in np.ndenumerate(share):
        axis.text(factor, dim, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white")
    axis.set_xticks(range(share.shape[1]), evaluation["factors"], rotation=20)
    axis.set_yticks(range(share.shape[0]), [f"latent {dim}" for dim in range(share.shape[0])])
    figure.colorbar(image, label="share of the factor's entropy")
    axis.set_title(f"{title}: MIG {evaluation['metrics']['mig']:.3f}")
    return figure
