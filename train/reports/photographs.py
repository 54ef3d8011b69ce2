"""The report of `train.benchmarks.photographs`: a Markdown page."""

from __future__ import annotations

from typing import Any

from train.reports.markdown import table


def page(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of photographs.json."""
    lines = [
        "# Photographs",
        "",
        "Half of every class is learned by `misfit learn`; contexts are drawn from the other half: one class with some "
        f"photographs of one other class, {result['contexts']} contexts of every cell. Baselines, where they are "
        f"measured, see the pooled features of the same backbone. Made by `{result['command']}` at commit "
        f"{result['commit']}, in {result['seconds']:.0f} s.",
    ]
    for collection in result["collections"]:
        lines += ["", f"## {collection['collection']}", "", *_collection(collection)]
    if result["foreign"]:
        lines += [
            "",
            "## Photographs of other collections",
            "",
            *table(
                ("learned", "other", "AUROC", "called foreign"),
                ([e["own"], e["other"], f"{e['auroc']:.4f}", f"{e['flagged']:.1%}"] for e in result["foreign"]),
            ),
        ]
    return "\n".join(lines) + "\n"


def arms_page(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of arms.json."""
    lines = [
        "# Other latents for photographs",
        "",
        "`axes` are the latents of `misfit learn`; `feature_tcvae` those of a beta-TCVAE over the same features; `vae` "
        "those of a beta-TCVAE on the pixels of the learned half; `vae_and_axes` both. AUROC, mean / worst decile. "
        f"Made by `{result['command']}` at commit {result['commit']}, in {result['seconds']:.0f} s.",
    ]
    for collection in result["collections"]:
        cells = collection["cells"]
        steps = collection["vae_steps"]
        lines += ["", f"## {collection['collection']}", "", *([f"VAE: {steps:,} steps.", ""] if steps else [])]
        lines += table(
            ("latents, estimator", *(f"{cell['size']} images, {cell['outliers']} outliers" for cell in cells)),
            ([name, *(_area(cell["auroc"][name]) for cell in cells)] for name in cells[0]["auroc"]),
        )
    return "\n".join(lines) + "\n"


def halves_page(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of halves.json."""
    size, outliers = result["size"], result["outliers"]
    lines = [
        "# Photographs: other halves",
        "",
        f"As in [the report](README.md), {result['contexts']} contexts of every cell, but with several random halves "
        f"of each collection, from seed {result['seed']} on. AUROC, found and normal ones flagged are of {size} "
        f"photographs with {outliers} misfits; clean are the flags in clean contexts of each size; false discoveries "
        "at .1 are those of the worst cell; the calibration error is over all cells. "
        f"Made by `{result['command']}` at commit {result['commit']}, in {result['seconds']:.0f} s.",
    ]
    for collection in result["collections"]:
        halves = collection["halves"]
        clean = [name for name in halves[0] if name.startswith("clean_flagged_")]
        sizes = [f"clean, {name.rpartition('_')[2]}" for name in clean]
        means = {name: sum(half[name] for half in halves) / len(halves) for name in halves[0]}
        rows = [(str(result["seed"] + number), half) for number, half in enumerate(halves)]
        lines += ["", f"## {collection['collection']}", ""]
        lines += table(
            ("seed", "AUROC", "found", "normal ones flagged", *sizes, "false discoveries at .1", "calibration error"),
            (
                [
                    name,
                    f"{half['auroc']:.3f}",
                    f"{half['found']:.0%}",
                    f"{half['inliers_flagged']:.1%}",
                    *(f"{half[each]:.1%}" for each in clean),
                    f"{half['false_discovery_proportion']:.2f}",
                    f"{half['calibration_error']:.3f}",
                ]
                for name, half in [*rows, ("mean", means)]
            ),
        )
    return "\n".join(lines) + "\n"


def _collection(collection: dict[str, Any]) -> list[str]:
    methods = list(next(cell["auroc"] for cell in collection["cells"] if cell["auroc"]))
    return [
        f"{collection['learned']} photographs learned, {collection['held_out']} held out, {collection['classes']} "
        f"classes. Calibration error over all cells {collection['calibration_error']:.3f}. "
        f"{collection['own_called_foreign']:.2%} of the held-out photographs are called foreign.",
        "",
        "AUROC, mean / worst decile:",
        "",
        *table(
            ("images", "outliers", *methods),
            (
                [str(cell["size"]), str(cell["outliers"]), *(_area(cell["auroc"][name]) for name in methods)]
                for cell in collection["cells"]
                if cell["outliers"]
            ),
        ),
        "",
        "Flags of the default estimator:",
        "",
        *table(
            ("images", "outliers", "found", "normal ones flagged", "false discoveries at .1", "called reliable"),
            (
                [
                    str(cell["size"]),
                    str(cell["outliers"]),
                    "" if cell["found"] is None else f"{cell['found']:.0%}",
                    f"{cell['inliers_flagged']:.1%}",
                    f"{cell['false_discovery_proportion']:.2f}",
                    f"{cell['called_reliable']:.0%}",
                ]
                for cell in collection["cells"]
            ),
        ),
    ]


def _area(area: dict[str, float]) -> str:
    return f"{area['mean']:.3f} / {area['worst_decile']:.3f}"
