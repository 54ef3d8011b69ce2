"""The variation of a preset over seeds: the runs, each measured by itself, with median and range."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from service.core.types import DEFAULT_ESTIMATOR
from train.reports.markdown import table
from train.reports.results import summarize
from train.reports.tables import stratum_means, words

SEEDS = "seeds.json"
BENCHMARK = Path("benchmark", "benchmark.json")  # in a run's directory
SHOWN = {"mig": "MIG", "mig_sampled": "MIG, sampled", "ssim": "SSIM", "live_latents": "live latents"}


def keep(runs: Sequence[Path], out: Path) -> Path:
    """Write seeds.json, README.md and every run's traversals to `out`. Return the page written.

    Raises FileNotFoundError where a run was not evaluated or its bundle not benchmarked. Raises ValueError where a run
    is not finished, has the seed of another, or has another preset.
    """
    records = [_measured(run) for run in runs]
    recipes = {json.dumps(entry["config"]["preset"], sort_keys=True) for entry in records}
    seeds = [entry["config"]["seed"] for entry in records]
    if len(recipes) > 1 or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"seeds are compared of one recipe: {len(runs)} runs have {len(recipes)} recipes and the seeds {seeds}"
        )
    out.mkdir(parents=True, exist_ok=True)
    for seed, run in zip(seeds, runs, strict=True):
        shutil.copy(run / "figures" / "traversals.png", out / f"traversals_{seed}.png")
    (out / SEEDS).write_text(json.dumps(records, indent=2) + "\n")
    (out / "README.md").write_text(markdown(records))
    return out / "README.md"


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """Return the page: a row for each seed, then median and range."""
    names = {**SHOWN, **{stratum: f"{words(stratum)}, AUROC" for stratum in records[0]["auroc"]}}
    rows = [{**entry["metrics"], **entry["auroc"]} for entry in records]
    factors = list(records[0]["metrics"]["mig_per_factor"])
    preset = records[0]["config"]["preset"]["name"]

    def line(label: str, values: Sequence[float]) -> list[str]:
        return [label, *(str(value) if isinstance(value, int) else f"{value:.3f}" for value in values)]

    def over(choose: Callable[[list[float]], float]) -> list[float]:
        return [choose([row[name] for row in rows]) for name in names]

    seeds = [entry["config"]["seed"] for entry in records]
    text = [
        f"# {preset} over {len(records)} seeds",
        "",
        f"Written by `python -m train seeds`. AUROC is that of `{DEFAULT_ESTIMATOR}` on the contextual benchmark of "
        "each run's own bundle, averaged over the cells of a stratum. All figures are of images that were not trained "
        "on.",
        "",
        *table(
            ("seed", *names.values()),
            [
                *(line(str(seed), [row[name] for name in names]) for seed, row in zip(seeds, rows, strict=True)),
                line("median", over(median)),
                line("lowest", over(min)),
                line("highest", over(max)),
            ],
        ),
        "",
        "## MIG by factor",
        "",
        *table(
            ("seed", *factors),
            [
                line(str(seed), [row["mig_per_factor"][factor] for factor in factors])
                for seed, row in zip(seeds, rows, strict=True)
            ],
        ),
    ]
    for entry in records:
        config, unfolding = entry["config"], entry.get("unfolding")
        text += [
            "",
            f"## Seed {config['seed']}",
            "",
            f"{entry['step']:,} steps, {entry['seconds'] / 60:.0f} minutes of training in {config['precision']}, begun "
            f"at commit {config['commit']}, measured at {entry['commit']}.",
        ]
        if unfolding is not None:
            folded = unfolding["folded"]
            done = "no latent was folded" if folded is None else f"latent {folded} was unfolded"
            text += ["", f"{len(unfolding['kept'])} latents were live, and {done}.{_second_look(unfolding)}"]
        text += ["", f"![traversals of seed {config['seed']}](traversals_{config['seed']}.png)"]
    return "\n".join(text) + "\n"


def _second_look(unfolding: dict[str, Any]) -> str:
    if "elsewhere" not in unfolding:
        return ""
    came_of_it = "were taught anew" if unfolding["aligned"] else "stayed as they were"
    return (
        f" At the second look {unfolding['elsewhere']:.1%} of the images said something else under other hues: "
        f"the two latents {came_of_it}."
    )


def _measured(run: Path) -> dict[str, Any]:
    path = run / BENCHMARK
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}: `python -m export {run} --out {run}/bundle`, then "
            f"`python -m train benchmark {run}/bundle --out {path.parent}`"
        )
    benchmark = json.loads(path.read_text())
    means = stratum_means(benchmark["cells"], (DEFAULT_ESTIMATOR,))
    return {
        **summarize(run),
        "benchmark": {key: benchmark[key] for key in ("bundle_id", "commit", "split", "images", "seed")},
        "auroc": {stratum: values[DEFAULT_ESTIMATOR]["mean"] for stratum, values in means.items()},
    }
