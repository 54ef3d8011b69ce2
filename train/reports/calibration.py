"""The report of `train.benchmarks.calibration`: a Markdown page and its two figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from train.benchmarks.calibration import CAUSES, FDR, KINDS, SIZES
from train.reports.markdown import table

Entry = dict[str, Any]

_COLUMNS = (
    *(
        "inliers",
        "images",
        "outliers' cause",
        "calibration error",
        "clean images flagged",
        "clean batches with a discovery",
    ),
    *(
        "with many flags",
        "of these called reliable",
        "found at 2 / 5 / 10 / 20 / 35%",
        "false discoveries",
        "missed silently",
    ),
)
_RELIABLE_COLUMNS = (
    *("inliers", "images", "reliable", "reliable with flags", "clean batches with a discovery"),
    *("of all clean batches", "false discoveries, several causes", "one cause", "calibration error"),
    "calibration error of all",
)
_RELIABLE_VALUES = (
    *("reliable", "flagged_reliable", "clean_with_discoveries"),
    *("discoveries_silently_false", "false_discoveries_several", "false_discoveries_alike"),
)


def page(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of calibration.json."""
    lines = [
        "# Are probabilities and flags right?",
        "",
        f"`{result['estimator']}` on simulated batches, seed {result['seed']}, {result['batches']} batches of each "
        f"cell with outliers; {result['seconds']:.0f} s. Made by `{result['command']}` at commit {result['commit']}.",
        "",
        "Calibration error: the mean distance between the probability and the share of outliers, over ten bins. A "
        f"clean batch has no outlier. Discoveries are at a false discovery rate of {FDR}. Many flags: more than a "
        "fifth of the images. Found: share of the outliers flagged, in batches whose ranks separate them (AUROC of .95 "
        "or more); - where none does. False discoveries: their mean proportion, over all shares. Missed silently: "
        "batches of which fewer than half of the outliers are flagged, and that are called reliable.",
        "",
        "![Reliability](reliability.png)",
        "",
        "![Found by share of outliers](found.png)",
        "",
        *table(_COLUMNS, map(_row, result["entries"])),
        "",
        "## What batches that call themselves reliable say",
        "",
        "Over batches whose `reliability` is high, clean ones and those of every share and cause. Reliable: their "
        "share; reliable with flags: their share of the batches that have a flag. Of all clean batches: the share of "
        "those that have a discovery and call themselves reliable. Discoveries are at a false discovery "
        f"rate of {FDR}; false ones: their mean proportion, where outliers have several causes, and where they share "
        "one or are copies. Calibration error of all: over all batches of the kind and size, reliable or not. - where "
        "there is no such batch.",
        "",
        *table(_RELIABLE_COLUMNS, map(_reliable_row, result["by_reliability"])),
        "",
        "## By the share of outliers",
        "",
        "Over all inliers and causes. The mean probability should be the share.",
        "",
        *table(
            ("images", "outliers", "mean probability", "calibration error"),
            (
                (str(e["size"]), f"{e['share']:.1%}", f"{e['mean_probability']:.1%}", f"{e['calibration_error']:.3f}")
                for e in result["by_share"]
            ),
        ),
        "",
        "## Two kinds whose numbers are chance",
        "",
        "Clean batches in which each image is of either kind by a coin, so that the smaller kind may be rare. With "
        "many flags: the share of the batches of which more than a fifth is flagged. Of these: how many are called "
        "reliable, and how many come without a warning of kinds.",
        "",
        *table(
            ("inliers", "images", "batches", "with many flags", "called reliable", "without a warning"),
            map(_row_by_chance, result["by_chance"]),
        ),
        "",
        "## Ranks in other families of contexts",
        "",
        "Mean AUROC over 2, 7 and 20% outliers. `train/benchmarks/families.py` says what the families are; all methods "
        "see the same latents. Reliable: the share of contexts of which `ensemble` calls itself reliable, and how far "
        "`density_ratio` is ahead of it there; - where there is none.",
        "",
        *_families(result["families"]),
    ]
    return "\n".join(lines) + "\n"


def _families(entries: list[Entry]) -> list[str]:
    methods = list(entries[0]["auroc"])
    rows = []
    for entry in entries:
        areas, reliable = entry["auroc"], entry["auroc_reliable"]
        lead = "-" if reliable is None else f"{reliable['density_ratio'] - reliable['ensemble']:+.3f}"
        shares = (f"{entry['reliable']:.2f}", lead)
        rows.append([entry["family"], str(entry["contexts"]), *(f"{areas[name]:.3f}" for name in methods), *shares])
    return table(("family", "contexts", *methods, "reliable", "lead of density_ratio where reliable"), rows)


def _row(entry: Entry) -> list[str]:
    cells = list(entry["by_outliers"].values())
    found = [cell["found_where_separated"] for cell in cells]
    return [
        entry["kind"].replace("_", " "),
        str(entry["size"]),
        entry["cause"],
        f"{entry['calibration_error']:.3f}",
        f"{entry['clean_flagged']:.4f}",
        f"{entry['clean_with_discoveries']:.2f}",
        f"{entry['clean_with_many_flags']:.2f}",
        str(entry["many_flags_called_reliable"]),
        " / ".join("-" if share is None else f"{share:.2f}" for share in found),
        f"{sum(cell['false_discovery_proportion'] for cell in cells) / len(cells):.3f}",
        f"{sum(cell['missed_silently'] for cell in cells) / len(cells):.2f}",
    ]


def _row_by_chance(entry: Entry) -> list[str]:
    return [
        entry["kind"].replace("_", " "),
        *(str(entry[name]) for name in ("size", "batches")),
        f"{entry['with_many_flags']:.3f}",
        *(str(entry[name]) for name in ("called_reliable", "without_a_warning_of_kinds")),
    ]


def _reliable_row(entry: Entry) -> list[str]:
    errors = entry["calibration_error"], entry["calibration_error_of_all"]
    return [
        entry["kind"].replace("_", " "),
        str(entry["size"]),
        *("-" if entry[name] is None else f"{entry[name]:.2f}" for name in _RELIABLE_VALUES),
        *("-" if error is None else f"{error:.3f}" for error in errors),
    ]


def draw_reliability(entries: list[Entry], path: Path) -> None:
    """Draw the share of outliers over the probability, one panel for each kind of inliers, one line for each size."""
    figure, axes = plt.subplots(3, 4, figsize=(12, 9), sharex=True, sharey=True)
    for axis, kind in zip(axes.flat, KINDS, strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for size in SIZES:
            (rows,) = [
                entry["reliability"]
                for entry in entries
                if (entry["kind"], entry["size"], entry["cause"]) == (kind, size, "several")
            ]
            axis.plot(
                [row["probability"] for row in rows],
                [row["outliers"] for row in rows],
                marker="o",
                markersize=3,
                label=str(size),
            )
        axis.set_title(kind.replace("_", " "))
    for axis in axes.flat[len(KINDS) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, title="images", loc="center")
    figure.supxlabel("outlier probability")
    figure.supylabel("share of outliers")
    _save(figure, path)


def draw_found(entries: list[Entry], path: Path) -> None:
    """Draw the share of outliers that are flagged over their share of the batch, one panel for each cause."""
    figure, axes = plt.subplots(1, len(CAUSES), figsize=(12, 4), sharex=True, sharey=True)
    for axis, cause in zip(axes, CAUSES, strict=True):
        for kind in KINDS:
            (entry,) = [
                entry for entry in entries if (entry["kind"], entry["size"], entry["cause"]) == (kind, 350, cause)
            ]
            shares = [int(count) / 350 for count in entry["by_outliers"]]
            found = [cell["found_where_separated"] for cell in entry["by_outliers"].values()]
            axis.plot(
                shares,
                [float("nan") if share is None else share for share in found],
                marker="o",
                markersize=3,
                label=kind.replace("_", " "),
            )
        axis.set_title({"several": "several causes", "one": "one cause", "copies": "copies of one image"}[cause])
        axis.set_ylim(-0.02, 1.02)
    axes[-1].legend(fontsize=8)
    figure.supxlabel("share of outliers among 350 images")
    figure.supylabel("found where separated")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
