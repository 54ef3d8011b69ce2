"""How far normal photographs reach towards strangers, on clean contexts: the table of `graded_calibration`.

Half of every class of a collection is learned, contexts of one class are drawn from the other half, several times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.store import Bundle
from service.core.decide.graded_calibration import BEYOND, PLACES, find_reaches
from service.core.detect.estimators import estimator_of
from service.core.detect.fit import fit
from service.core.detect.posterior import scores_to_calibrate
from service.core.detect.standardize import PopulationUnits
from train.benchmarks.photographs import Cell, Half, draw, learn_half
from train.reports.markdown import table

FloatArray = NDArray[np.float64]

SIZES = (50, 100)


def run(collections: Sequence[Path], halves: int, contexts: int, seed: int) -> dict[str, Any]:
    """Measure the share of normal photographs beyond each place, of every collection and of all, each counting alike.

    halves    how many times each collection is divided in halves
    contexts  of every size of SIZES, for each half
    """
    beyond, counts = {}, {}
    for collection in collections:
        reaches = []
        for number in range(halves):
            with tempfile.TemporaryDirectory() as scratch:
                bundle, half, _ = learn_half(collection, Path(scratch), seed + number)
                reaches.append(measure(bundle, half, contexts, np.random.default_rng([seed, number])))
        together = np.concatenate(reaches)
        counts[collection.name] = len(together)
        beyond[collection.name] = [float((together > place).mean()) for place in PLACES]
    mean = np.mean(list(beyond.values()), axis=0).tolist()
    return {"places": PLACES.tolist(), "in_use": BEYOND.tolist(), "mean": mean, "beyond": beyond, "scores": counts}


def measure(bundle: Bundle, half: Half, contexts: int, random: np.random.Generator) -> FloatArray:
    """Return how far the photographs of clean contexts of `half` reach, those of all contexts together."""
    units, reaches = PopulationUnits.of(bundle.population), [np.empty(0)]
    for size in SIZES:
        for _ in range(contexts):
            drawn = draw(half, Cell(size, 0), random)
            if drawn is None:
                continue
            latents = half.latents[drawn[0]]
            context = fit(latents, bundle.population, estimator=bundle.manifest.default_estimator, source="batch")
            scores, population = scores_to_calibrate(context, units.points(latents), units)
            reaches.append(find_reaches(scores, population, estimator_of(context).smallest_scale))
    return np.concatenate(reaches)


def page(result: dict[str, Any]) -> str:
    """Return the table as Markdown, with the one that is in use."""
    names = list(result["beyond"])
    columns = (result["in_use"], result["mean"], *result["beyond"].values())
    rows = ([f"{place:g}", *(f"{column[row]:.2g}" for column in columns)] for row, place in enumerate(result["places"]))
    lines = [
        "# How far normal photographs reach",
        "",
        "The share of the photographs of clean contexts that reach further than each place: 0 is a context's median "
        "score, 1 the median of strangers. "
        + ", ".join(f"{count:,} scores of {name}" for name, count in result["scores"].items())
        + f". Made by `{result['command']}` at commit {result['commit']}.",
        "",
        *table(("place", "in use", "mean", *names), rows),
    ]
    return "\n".join(lines) + "\n"
