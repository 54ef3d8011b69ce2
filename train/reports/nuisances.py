"""The report of `train.benchmarks.nuisances`: a Markdown page and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from train.benchmarks import nuisances
from train.benchmarks.nuisances import LARGE, LEAST_AUROC, LEAST_WORST, MOST_FALSE_FLAGS, MOST_ONES, SMALL
from train.reports.markdown import table

Entry = dict[str, Any]


def page(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of nuisances.json."""
    entries = result["entries"]
    judged = [entry for entry in entries if entry["judged"]]
    met = sum(map(nuisances.meets_goals, judged))
    return "\n".join(
        [
            "# Nuisances",
            "",
            f"{result['model']} (bundle {result['bundle_id'][:12]}) on {result['data']}, {result['split']} images: "
            f"{result['contexts']} batches of {SMALL[0]} images with {SMALL[1]} outliers, every fifth of {LARGE[0]} "
            f"with {LARGE[1]}. A nuisance is applied to all images of a batch, to a random half of them, and to one "
            f"normal image among {SMALL[0] - 1} others. Everything is scored with the default options. Made by "
            f"`{result['command']}` at commit {result['commit']}, in {result['seconds']:.0f} s.",
            "",
            f"Goals, for the nuisances marked with a star: AUROC at least {LEAST_AUROC} in mean and {LEAST_WORST} in "
            f"the worst decile, at most {MOST_FALSE_FLAGS:.1%} of the normal images flagged, and at most "
            f"{MOST_ONES:.0%} of the single images. {met} of {len(judged)} meet all of them.",
            "",
            "![Ranks under nuisances](nuisances.png)",
            "",
            *table(
                (
                    *("nuisance", "all: AUROC, mean / worst decile", "false flags", "found", "foreign"),
                    *("half: AUROC, mean / worst decile", "false flags", "found", "foreign"),
                    *("one: flagged", "foreign"),
                ),
                map(_row, entries),
            ),
            "",
        ]
    )


def draw(entries: list[Entry], path: Path) -> None:
    """Draw the worst decile of the AUROC under every nuisance, and how often a single image is flagged."""
    names = [_name(entry) for entry in entries]
    places = np.arange(len(entries))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.28 * len(entries) + 1.2), sharey=True, width_ratios=(3, 1)
    )
    for way, marker, offset in (("all", "o", -0.12), ("half", "s", 0.12)):
        worst = [entry[way]["auroc"]["worst_decile"] for entry in entries]
        mean = [entry[way]["auroc"]["mean"] for entry in entries]
        left.hlines(places + offset, worst, mean, color="0.8", zorder=1)
        left.plot(worst, places + offset, marker, label=f"{way}: worst decile", markersize=5)
        left.plot(mean, places + offset, "|", color="black", label=f"{way}: mean" if way == "all" else None)
    left.axvline(LEAST_WORST, color="0.6", linestyle=":")
    left.set(xlabel="AUROC", yticks=places, yticklabels=names, xlim=(min(0.75, left.get_xlim()[0]), 1.005))
    left.invert_yaxis()
    left.legend(loc="lower left", fontsize=8)
    right.barh(places, [entry["one"]["flagged"] for entry in entries], height=0.5, color="tab:grey")
    right.axvline(MOST_ONES, color="0.6", linestyle=":")
    right.set(xlabel="single images flagged", xlim=(0, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _row(entry: Entry) -> list[str]:
    cells = [_name(entry)]
    for way in ("all", "half"):
        part = entry[way]
        cells += [
            f"{part['auroc']['mean']:.4f} / {part['auroc']['worst_decile']:.4f}",
            f"{part['false_flags']:.1%}",
            f"{part['found']:.0%}",
            f"{part['foreign']:.1%}",
        ]
    return [*cells, f"{entry['one']['flagged']:.1%}", f"{entry['one']['foreign']:.1%}"]


def _name(entry: Entry) -> str:
    return f"{entry['nuisance']} *" if entry["judged"] else str(entry["nuisance"])
