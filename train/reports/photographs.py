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
