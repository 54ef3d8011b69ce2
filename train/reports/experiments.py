"""The page of all kept results, in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from train.config.presets import PRESETS
from train.reports.markdown import table
from train.reports.results import METRICS

# The experiments of the table. Each has its row, even where it was not run.
EXPERIMENTS = tuple(name for name in PRESETS if name not in ("shapes3d_beta_tcvae_plain", "folder"))
# Published values.
PUBLISHED = {"shapes3d_beta_tcvae": {"ssim": 0.9195, "mig": 0.6235}}
DIAGNOSIS = "diagnosis.md"  # written by hand, beside the figures that it explains
SEEDS = "seeds"  # of the preset's directory: what `python -m train seeds` wrote
FIGURES = ("losses", "reconstructions", "morphs", "traversals", "mutual_information")

COLUMNS = {
    "ssim": "SSIM",
    "reconstruction_nll": "reconstruction nll",
    "elbo": "ELBO",
    "live_latents": "live latents",
    "mig": "MIG",
    "mig_sampled": "MIG, sampled",
    "dci_disentanglement": "DCI D",
    "dci_completeness": "DCI C",
    "dci_informativeness": "DCI I",
    "sap": "SAP",
    "infomec_modularity": "InfoM",
    "infomec_explicitness": "InfoE",
    "infomec_compactness": "InfoC",
}


def page(results: Path) -> str:
    """Return the page, from `results`/PRESET/metrics.json and the figures beside each."""
    metrics = {
        name: json.loads((results / name / METRICS).read_text())
        for name in EXPERIMENTS
        if (results / name / METRICS).exists()
    }
    lines = [
        "# Experiments",
        "",
        "Written by `python -m train page` from the metrics.json of each finished run. All figures are of images that "
        "were not trained on; nll and ELBO in nats per image. In brackets: what was published for the experiment. "
        "Empty: not measured; MIG and the rest need generative factors, which MNIST has none of.",
        "",
        *table(("preset", "steps", *COLUMNS.values()), (_row(name, metrics.get(name)) for name in EXPERIMENTS)),
    ]
    for name in EXPERIMENTS:
        lines += ["", f"## {name}", "", f"{PRESETS[name]().description}.", ""]
        lines += _section(results / name, name, metrics[name]) if name in metrics else ["Not run to its end yet."]
    return "\n".join(lines) + "\n"


def _row(name: str, metrics: dict[str, Any] | None) -> list[str]:
    steps = f"{PRESETS[name]().total_steps:,}"
    if metrics is None:
        return [name, f"{steps}, not run", *("" for _ in COLUMNS)]
    published = PUBLISHED.get(name, {})
    cells = []
    for key in COLUMNS:
        value = metrics["metrics"].get(key)
        shown = "" if value is None else str(value) if isinstance(value, int) else _number(value)
        cells.append(f"{shown} ({published[key]})" if key in published else shown)
    return [f"[{name}](#{name})", f"{metrics['step']:,}", *cells]


def _section(directory: Path, name: str, metrics: dict[str, Any]) -> list[str]:
    config = metrics["config"]
    losses = ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in metrics["final_losses"].items())
    data, minutes = metrics["data"], round(metrics["seconds"] / 60)
    lines = [
        f"Seed {config['seed']}, {config['precision']}, {metrics['step']:,} steps, {minutes} minutes "
        f"of training, begun at commit {config['commit']}, measured at {metrics['commit']} on "
        f"{data['held_out_images']:,} {data['split']} images of {data['name']} ({data['source']}).",
        "",
        f"At the end of training: {losses}.",
    ]
    if gaps := metrics["metrics"].get("mig_per_factor"):
        lines += ["", f"MIG by factor: {', '.join(f'{factor} {gap:.2f}' for factor, gap in gaps.items())}."]
    if remarks := metrics.get("remarks"):
        lines += ["", *(f"- {remark}" for remark in remarks)]
    if (directory / DIAGNOSIS).exists():
        lines += ["", (directory / DIAGNOSIS).read_text().strip()]
    if (directory / SEEDS / "README.md").exists():
        lines += ["", f"[The same recipe over several seeds]({name}/{SEEDS}/README.md)."]
    for figure in FIGURES:
        if (directory / f"{figure}.png").exists():
            lines += ["", f"![{figure.replace('_', ' ')}]({name}/{figure}.png)"]
    return lines


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
