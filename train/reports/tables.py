"""The outlier benchmark's report in Markdown: the default estimator beside the oracle, then all methods by stratum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from service.core.types import DEFAULT_ESTIMATOR
from train.benchmarks.baselines import FLAGGING, METHODS
from train.reports.markdown import table

Entry = dict[str, Any]


def markdown(result: dict[str, Any]) -> str:
    """Return the page for `result`, the content of benchmark.json."""
    entries: list[Entry] = result["cells"]
    lines = [
        f"# Contextual outliers: {result['model']}",
        "",
        f"Bundle `{result['bundle_id'][:12]}`, {result['images']:,} {result['split']} images of {result['data']}, "
        f"seed {result['seed']}; {result['seconds']:.0f} s. Made by `{result['command']}` at commit "
        f"{result['commit']}.",
        "",
        "AUROC with a 95% bootstrap interval over the contexts; the worst decile is the mean of the worst tenth. "
        "Found: share of the outliers flagged; where separated: in contexts of an AUROC of .95 or more. Named: share "
        "of those whose differing factor tops the attributions.",
    ]
    lines += [
        "",
        "## Every method: AUROC, mean / worst decile, averaged over the cells of a stratum",
        "",
        *table(("stratum", *METHODS), _summary_rows(entries)),
    ]
    for name in FLAGGING:
        shipped = " (what ships)" if name == DEFAULT_ESTIMATOR else ""
        lines += ["", f"## `{name}`{shipped}", "", *table(_COLUMNS, (_row(entry, name) for entry in entries))]
    lines += [
        "",
        "## By the number of fixed factors: AUROC, mean / worst decile",
        "",
        *table(("stratum", "fixed factors", "contexts", *FLAGGING), map(_fixed_row, result["by_fixed"])),
    ]
    lines += [
        "",
        "## Counterfactuals of outliers that differ in one factor",
        "",
        "Shares of the outliers found, whose repaired image is decoded, encoded again and read by a classifier. "
        f"It reads all factors of {result['counterfactuals'][0]['readable']:.3f} of untouched images; `kept` is judged "
        "where it read the other factors right before the repair.",
        "",
        *table(("stratum", "outliers", *_REPAIRS), map(_repair_row, result["counterfactuals"])),
    ]
    if result["foreign"]:
        lines += foreign_section(result["foreign"])
    for stratum in dict.fromkeys(entry["stratum"] for entry in entries if "oracle" in entry["methods"]):
        of_stratum = [entry for entry in entries if entry["stratum"] == stratum]
        fewer = {name: entry["contexts"] for name, entry in of_stratum[0]["methods"].items()}
        lines += ["", f"## {words(stratum)}: AUROC, mean / worst decile", ""]
        if odd := [f"{name}: {count}" for name, count in fewer.items() if count < of_stratum[0]["contexts"]]:
            lines += [f"{of_stratum[0]['contexts']} contexts a cell ({', '.join(odd)}).", ""]
        lines += table(("images/outliers", *METHODS), map(_method_row, of_stratum))
    return "\n".join(lines) + "\n"


_COLUMNS = (
    *("stratum", "images/outliers", "contexts", "fixed factors", "AUROC", "worst decile", "oracle", "its worst decile"),
    *(
        "share of oracle",
        "of its worst decile",
        "average precision",
        "found",
        "found where separated",
        "named",
        "inliers flagged",
        "FDR",
    ),
)


def stratum_means(entries: Sequence[Entry], methods: Iterable[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return AUROC by stratum and method, `mean` and `worst_decile`, each averaged over the stratum's cells."""
    means = {}
    for stratum in dict.fromkeys(entry["stratum"] for entry in entries if "oracle" in entry["methods"]):
        of_stratum = [entry["methods"] for entry in entries if entry["stratum"] == stratum]
        means[stratum] = {
            name: {
                key: sum(cell[name]["auroc"][key] for cell in of_stratum) / len(of_stratum)
                for key in ("mean", "worst_decile")
            }
            for name in methods
        }
    return means


def _summary_rows(entries: Sequence[Entry]) -> Iterator[list[str]]:
    for stratum, means in stratum_means(entries, METHODS).items():
        yield [words(stratum), *(f"{auroc['mean']:.3f} / {auroc['worst_decile']:.3f}" for auroc in means.values())]


_FOREIGN_COLUMNS = ("kind", "judged", "AUROC", "flagged", "lowest foreignness", "median foreignness")


def foreign_section(foreign: Entry) -> list[str]:
    """Return the section about out-of-distribution images, from what `train.benchmarks.ood.measure` returns."""
    contexts = foreign["contexts"]
    outliers, strange = contexts["outlier_auroc"], contexts["foreign_auroc"]
    return [
        "",
        "## Foreign images",
        "",
        f"{foreign['images_a_kind']} images a kind against {foreign['known_images']:,} held-out ones, of which "
        f"{foreign['known_images_flagged']:.4%} are flagged (highest foreignness "
        f"{foreign['known_images_highest']:.2f}; the limit is 1). All judged kinds together: AUROC "
        f"{foreign['auroc']:.5f}, {foreign['found']:.2%} flagged. The other kinds differ little from what they are "
        "made of, and have no goal.",
        "",
        f"{contexts['contexts']} contexts of {contexts['size']} images, {contexts['outliers']} of them outliers, with "
        f"{contexts['foreign']} foreign ones added. AUROC of the outliers among the known images: "
        f"{outliers['alone']:.4f} without foreign ones, {outliers['checked']:.4f} with them, "
        f"{outliers['unchecked']:.4f} with them and the check off. AUROC of the foreign ones: "
        f"{strange['checked']:.4f}, with the check off {strange['unchecked']:.4f}. {contexts['foreign_found']:.2%} of "
        "them are flagged in their contexts.",
        "",
        *table(_FOREIGN_COLUMNS, (_kind_row(kind, entry) for kind, entry in foreign["kinds"].items())),
    ]


def _kind_row(kind: str, entry: Entry) -> list[str]:
    shares = [f"{entry['auroc']:.5f}", f"{entry['found']:.3f}", f"{entry['lowest']:.2f}", f"{entry['median']:.1f}"]
    return [kind, "yes" if entry["judged"] else "no", *shares]


_REPAIRS = ("inside", "restored", "kept", "restored_and_kept")


def _repair_row(repairs: Entry) -> list[str]:
    return [words(repairs["stratum"]), str(repairs["outliers"]), *(f"{repairs[key]:.3f}" for key in _REPAIRS)]


def _row(entry: Entry, name: str) -> list[str]:
    own = entry["methods"][name]
    case = [words(entry["stratum"]), _size(entry), str(entry["contexts"]), f"{entry['fixed_factors']:.1f}"]
    flags = [f"{own['inliers_flagged']:.4f}", f"{own['false_discovery_rate']:.3f}"]
    if "auroc" not in own:
        return [*case, *["-"] * (len(_COLUMNS) - len(case) - len(flags)), *flags]
    area, share, named = own["auroc"], own["share_of_oracle"], entry["attribution_top_1"]
    return [
        *case,
        f"{area['mean']:.4f} ({area['low']:.4f} to {area['high']:.4f})",
        f"{area['worst_decile']:.4f}",
        *(f"{value:.4f}" for value in (*_pair(entry["methods"]["oracle"]["auroc"]), *_pair(share))),
        f"{own['average_precision']:.3f}",
        f"{own['found']:.3f}",
        "-" if own["found_where_separated"] is None else f"{own['found_where_separated']:.3f}",
        "-" if named is None or name != DEFAULT_ESTIMATOR else f"{named:.3f}",
        *flags,
    ]


def _method_row(entry: Entry) -> list[str]:
    areas = [entry["methods"][name]["auroc"] for name in METHODS if name in entry["methods"]]
    return [_size(entry), *(f"{area['mean']:.4f} / {area['worst_decile']:.4f}" for area in areas)]


def _fixed_row(entry: Entry) -> list[str]:
    areas = (f"{area['mean']:.4f} / {area['worst_decile']:.4f}" for area in entry["auroc"].values())
    return [words(entry["stratum"]), str(entry["fixed"]), str(entry["contexts"]), *areas]


def _pair(area: dict[str, float]) -> tuple[float, float]:
    return area["mean"], area["worst_decile"]


def _size(entry: Entry) -> str:
    return f"{entry['size']}/{entry['outliers']}"


def words(stratum: str) -> str:
    """Return the name of a stratum in words."""
    return stratum.replace("_", " ")
