"""The report of `train.benchmarks.digits`: a Markdown page and its two figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.core.detect.scoring import Scores
from train.benchmarks.baselines import Material
from train.benchmarks.contexts import IntArray
from train.benchmarks.digits import PAIRED, REFERENCE, ContextSpec, draw, score_as_served
from train.data.dataset import Dataset
from train.data.mnist import DIGITS
from train.reports.figures import save
from train.reports.markdown import table

# The page that is shown: threes with some eights.
SHOWN = ContextSpec(size=60, others=6, normal=3, other=8, index=0)
COLUMNS = 15
FLAG, STRANGER = "tab:red", "tab:blue"


def markdown(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of digits.json."""
    cells, clean, default = result["cells"], result["clean"], result["default_estimator"]
    methods, flagging = tuple(cells[0]["methods"]), tuple(cells[0]["flagged"])
    pairs = [pair for row in result["pairs"] for pair in row if pair]
    lines = [
        f"# Batches of one digit with some of another: {result['model']}",
        "",
        f"Bundle `{result['bundle_id'][:12]}`, {result['images']:,} {result['split']} images of {result['data']}, seed "
        f"{result['seed']}; {result['seconds']:.0f} s. Made by `{result['command']}` at commit {result['commit']}.",
        "",
        f"All {len(pairs)} ordered pairs of digits weigh the same. AUROC: mean / mean of the worst tenth of the "
        f"contexts. Reference: {REFERENCE} other images of the normal digit came with the request. The "
        f"bundle's default is `{default}`.",
        "",
        "![Threes with some eights, ranked](batch.png)",
        "",
        "## Ranking: AUROC",
        "",
        *table(
            ("images/others", "contexts", *methods),
            (
                [
                    f"{cell['size']}/{cell['others']}",
                    str(cell["contexts"]),
                    *(_area(cell["methods"][name]["auroc"]) for name in methods),
                ]
                for cell in cells
            ),
        ),
        "",
        "isolation_forest and mcd see one context of each cell and pair. The oracle is a Gaussian with the moments of "
        "all held-out images of the normal digit, which no batch shows.",
        "",
        "## Flags: share of the others found / share of the normal images flagged",
        "",
        *table(("images/others", *flagging), _flag_rows(cells)),
        "",
        "## Clean batches: share of the images flagged / share of the batches in which any is",
        "",
        *table(("images", "contexts", *flagging), _clean_rows(clean)),
        "",
        f"By digit, of {clean[-1]['size']} images, `{default}`: "
        + ", ".join(f"{d}: {share:.2%}" for d, share in enumerate(clean[-1]["flagged"][default]["by_digit"]))
        + ".",
        "",
        "## Pairs of digits",
        "",
        "![AUROC by pair](pairs.png)",
    ]
    return "\n".join(lines) + "\n"


def draw_figures(material: Material, dataset: Dataset, result: dict[str, Any], seed: int, output: Path) -> list[Path]:
    """Draw the context SHOWN with and without a reference set, and the AUROC by pair of digits.

    Return the files written.
    """
    assert dataset.labels is not None, "MNIST has labels"
    default = result["default_estimator"]
    context, reference = draw(SHOWN, dataset.labels, seed)
    images, labels = dataset.images[context.rows], dataset.labels[context.rows]
    figures = {
        "batch": draw_page(
            images,
            labels,
            {
                "the batch by itself": score_as_served(material, context.rows, default),
                f"with {REFERENCE} other threes as reference": score_as_served(
                    material, context.rows, default, reference
                ),
            },
        ),
        "pairs": draw_pairs(result["pairs"], (default, *PAIRED), result["model"]),
    }
    return save(figures, output)


def draw_page(images: NDArray[np.uint8], labels: IntArray, scored: dict[str, Scores]) -> Figure:
    """Show images (n, 28, 28, 1), the highest score first, once for each way of scoring in `scored`."""
    lines = -(-len(images) // COLUMNS)
    figure = plt.figure(figsize=(COLUMNS * 0.8, (lines * 0.95 + 0.6) * len(scored)), layout="constrained")
    parts = figure.subfigures(len(scored), squeeze=False).ravel()
    for part, (name, scores) in zip(parts, scored.items(), strict=True):
        strangers = labels != SHOWN.normal
        caught = int((scores.is_outlier & strangers).sum())
        wrong = int((scores.is_outlier & ~strangers).sum())
        part.suptitle(
            f"{len(images) - strangers.sum()} threes and {strangers.sum()} eights, the most outlying first; {name}: "
            f"flagged (framed) {caught} of the eights, {wrong} of the threes",
            fontsize=11,
        )
        axes = part.subplots(lines, COLUMNS).ravel()
        for axis, row in zip(axes, np.argsort(scores.rank), strict=False):
            axis.imshow(images[row].squeeze(), cmap="gray_r", vmin=0, vmax=255)
            colour, weight = (STRANGER, "bold") if strangers[row] else ("black", "normal")
            axis.set_title(
                f"{labels[row]}  {scores.outlier_probability[row]:.2f}", fontsize=8, color=colour, weight=weight
            )
            for spine in axis.spines.values():
                spine.set(
                    color=FLAG if scores.is_outlier[row] else "lightgrey", linewidth=3 if scores.is_outlier[row] else 1
                )
        for axis in axes:
            axis.set(xticks=[], yticks=[])
    return figure


def draw_pairs(entries: Sequence[Sequence[dict[str, float] | None]], methods: Sequence[str], model: str) -> Figure:
    """Show the AUROC of every method by normal digit (down) and other digit (across)."""
    figure, axes = plt.subplots(1, len(methods), figsize=(16, 5.4), layout="constrained")
    for axis, name in zip(axes, methods, strict=True):
        areas = np.array([[np.nan if pair is None else pair[name] for pair in row] for row in entries])
        shown = axis.imshow(areas, vmin=0.5, vmax=1, cmap="viridis")
        for (normal, other), area in np.ndenumerate(areas):
            if normal != other:
                colour = "black" if area > 0.8 else "white"
                axis.text(other, normal, f"{area:.2f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set_title(f"{name}: mean {np.nanmean(areas):.3f}")
        axis.set(xticks=range(DIGITS), yticks=range(DIGITS), xlabel="other digit", ylabel="normal digit")
    figure.colorbar(shown, ax=axes, label="AUROC", shrink=0.8)
    figure.suptitle(f"{model}: batches of one digit with some of another, AUROC over all sizes and shares")
    return figure


def _area(auroc: dict[str, float]) -> str:
    return f"{auroc['mean']:.3f} / {auroc['worst_decile']:.3f}"


def _flag_rows(cells: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for cell in cells:
        yield [
            f"{cell['size']}/{cell['others']}",
            *(f"{each['found']:.1%} / {each['inliers']:.1%}" for each in cell["flagged"].values()),
        ]


def _clean_rows(entries: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for entry in entries:
        yield [
            str(entry["size"]),
            str(entry["contexts"]),
            *(f"{each['images']:.2%} / {each['batches']:.1%}" for each in entry["flagged"].values()),
        ]
