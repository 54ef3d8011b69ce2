"""What the outcomes of simulated batches say together: calibration, false flags, discoveries, and what is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.benchmarks.calibration import BY_CHANCE, CAUSES, KINDS, SIZES, SIZES_BY_CHANCE, Outcome

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

BINS = 10
# A batch of which more is flagged has many flags.
MANY = 0.2


def calibration_error(probability: FloatArray, truth: BoolArray) -> float:
    """Return the expected calibration error over BINS bins of equal width (Naeini, Cooper & Hauskrecht 2015)."""
    return sum(row["share"] * abs(row["probability"] - row["outliers"]) for row in reliability(probability, truth))


def reliability(probability: FloatArray, truth: BoolArray) -> list[dict[str, float]]:
    """Return for each bin that is not empty its share of the images, their mean probability and share of outliers."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        {
            "share": float((bins == place).mean()),
            "probability": float(probability[bins == place].mean()),
            "outliers": float(truth[bins == place].mean()),
        }
        for place in np.unique(bins)
    ]


def report(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one entry for each kind, size and cause: calibration, false flags, discoveries, what is found."""
    entries = []
    for kind in KINDS:
        for size in SIZES:
            of_size = [each for each in outcomes if (each.cell.kind, each.cell.size) == (kind, size)]
            clean = [each for each in of_size if not each.cell.outliers]
            for cause in CAUSES:
                dirty = [each for each in of_size if each.cell.cause == cause]
                if dirty:
                    entries.append({"kind": kind, "size": size, "cause": cause, **_entry(clean, dirty)})
    return entries


def report_by_share(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return calibration by the share of outliers, over all kinds of inliers and causes."""
    entries = []
    for size in SIZES:
        of_size = [each for each in outcomes if each.cell.size == size]
        for count in sorted({each.cell.outliers for each in of_size}):
            alike = [each for each in of_size if each.cell.outliers == count]
            probability = np.concatenate([each.probability for each in alike])
            truth = np.concatenate([each.is_outlier for each in alike])
            entries.append(
                {
                    "size": size,
                    "share": count / size,
                    "calibration_error": calibration_error(probability, truth),
                    "mean_probability": float(probability.mean()),
                }
            )
    return entries


def report_by_reliability(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return for each kind and size what holds of the batches that call themselves reliable, and how many do;
    and the calibration error of all batches, of every share and cause."""
    entries = []
    for kind in KINDS:
        for size in SIZES:
            of_size = [each for each in outcomes if (each.cell.kind, each.cell.size) == (kind, size)]
            if of_size:
                entries.append({"kind": kind, "size": size, **_of_reliable(of_size)})
    return entries


def report_by_chance(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return for each kind and size of `run_by_chance` how many clean batches have many flags, and what those say."""
    entries = []
    for kind in BY_CHANCE:
        for size in SIZES_BY_CHANCE:
            clean = [each for each in outcomes if (each.cell.kind, each.cell.size) == (kind, size)]
            many = [each for each in clean if each.flagged.mean() > MANY]
            entries.append(
                {
                    "kind": kind,
                    "size": size,
                    "batches": len(clean),
                    "with_many_flags": len(many) / len(clean),
                    "called_reliable": sum(each.is_reliable for each in many),
                    "without_a_warning_of_kinds": sum(not each.warns_of_kinds for each in many),
                }
            )
    return entries


def _of_reliable(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Return shares and errors of the reliable batches among `outcomes`; None where there are none."""
    reliable = [each for each in outcomes if each.is_reliable]
    clean = [each for each in reliable if not each.cell.outliers]
    several = [each for each in reliable if each.cell.cause == "several"]
    alike = [each for each in reliable if each.cell.cause in ("one", "copies")]
    flagged = [each for each in outcomes if each.flagged.any()]
    all_clean = [each for each in outcomes if not each.cell.outliers]
    return {
        "reliable": len(reliable) / len(outcomes),
        "flagged_reliable": len([each for each in flagged if each.is_reliable]) / len(flagged) if flagged else None,
        "clean_with_discoveries": _mean([float(each.discovered.any()) for each in clean]),
        "discoveries_silently_false": _mean([float(each.discovered.any() and each.is_reliable) for each in all_clean]),
        "false_discoveries_several": _mean([_false_discoveries(each) for each in several]),
        "false_discoveries_alike": _mean([_false_discoveries(each) for each in alike]),
        "calibration_error": _calibration_error(reliable),
        "calibration_error_of_all": _calibration_error(outcomes),
    }


def _calibration_error(outcomes: Sequence[Outcome]) -> float | None:
    if not outcomes:
        return None
    probability = np.concatenate([each.probability for each in outcomes])
    return calibration_error(probability, np.concatenate([each.is_outlier for each in outcomes]))


def _false_discoveries(outcome: Outcome) -> float:
    return float((outcome.discovered & ~outcome.is_outlier).sum() / max(outcome.discovered.sum(), 1))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _entry(clean: Sequence[Outcome], dirty: Sequence[Outcome]) -> dict[str, Any]:
    everything = [*clean, *dirty]
    probability = np.concatenate([each.probability for each in everything])
    truth = np.concatenate([each.is_outlier for each in everything])
    many = [each for each in clean if each.flagged.mean() > MANY]
    by_outliers = {
        str(count): _found([each for each in dirty if each.cell.outliers == count])
        for count in dict.fromkeys(each.cell.outliers for each in dirty)
    }
    return {
        "batches": len(everything),
        "calibration_error": calibration_error(probability, truth),
        "reliability": reliability(probability, truth),
        "clean_flagged": float(np.mean([each.flagged.mean() for each in clean])),
        "clean_with_discoveries": float(np.mean([each.discovered.any() for each in clean])),
        "clean_with_many_flags": len(many) / len(clean),
        "many_flags_called_reliable": sum(each.is_reliable for each in many),
        "by_outliers": by_outliers,
    }


def _found(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    separated = [each for each in outcomes if each.separated]
    return {
        "separated": len(separated) / len(outcomes),
        "found_where_separated": (
            float(np.mean([each.flagged[each.is_outlier].mean() for each in separated])) if separated else None
        ),
        "false_discovery_proportion": float(np.mean([_false_discoveries(each) for each in outcomes])),
        "missed_silently": float(
            np.mean([each.flagged[each.is_outlier].mean() < 0.5 and each.is_reliable for each in outcomes])
        ),
    }
