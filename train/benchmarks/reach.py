"""How far normal photographs reach towards strangers, and how often outliers are masked.

These are the tables of `graded_calibration`. Half of every class of a collection is learned, contexts of one class are
drawn from the other half, several times: clean ones, and such with outliers of one other class.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from service.bundle.store import Bundle
from service.core.decide.calibration import SHARES
from service.core.decide.graded_calibration import BEYOND, MASKED, PLACES, find_reaches, tail_power
from service.core.detect.estimators.registry import estimator_of
from service.core.detect.posterior import with_scores
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from train.benchmarks.photographs import Cell, Half, draw, learn_half
from train.reports.markdown import table

FloatArray = NDArray[np.float64]

SIZES = (50, 100)
# In few images normal ones reach further: how much is measured, but the table is of the sizes above.
FEW = (20,)
# Of outliers of one other class.
OUTLIERS = (0.01, 0.07, 0.2, 0.35)
# The tail by which outliers that are seen are told from masked ones.
TAIL = 1
ROUNDS = 200


def run(collections: Sequence[Path], halves: int, contexts: int, seed: int) -> dict[str, Any]:
    """Measure the share of normal photographs beyond each place, of every collection and of all, each counting alike.

    halves    how many times each collection is divided in halves
    contexts  of every size of FEW and SIZES, for each half
    """
    beyond, counts, masked, powers = {}, {}, {}, {}
    for collection in collections:
        reaches: dict[int, list[FloatArray]] = {size: [] for size in (*FEW, *SIZES)}
        ratios = []
        for number in range(halves):
            with tempfile.TemporaryDirectory() as scratch:
                bundle, half, _ = learn_half(collection, Path(scratch), seed + number)
                random = np.random.default_rng([seed, number])
                for size in (*SIZES, *FEW):
                    reaches[size].append(measure(bundle, half, size, contexts, random))
                ratios.append([measure_masked(bundle, half, share, contexts, seed + number) for share in OUTLIERS])
        together = np.concatenate([each for size in SIZES for each in reaches[size]])
        powers[collection.name] = [tail_power(np.concatenate(each)) for each in reaches.values()]
        counts[collection.name] = len(together)
        beyond[collection.name] = [float((together > place).mean()) for place in PLACES]
        masked[collection.name] = [masked_share(np.concatenate(of_share)) for of_share in zip(*ratios, strict=True)]
    mean = np.mean(list(beyond.values()), axis=0).tolist()
    return {
        "places": PLACES.tolist(),
        "in_use": BEYOND.tolist(),
        "mean": mean,
        "beyond": beyond,
        "scores": counts,
        "outliers": list(OUTLIERS),
        "sizes": [*FEW, *SIZES],
        "powers": powers,
        "masked": masked,
        "masked_in_use": dict(zip(SHARES.tolist(), MASKED.tolist(), strict=True)),
    }


def measure(bundle: Bundle, half: Half, size: int, contexts: int, random: np.random.Generator) -> FloatArray:
    """Return how far the photographs of clean contexts of `size` reach, those of all contexts together."""
    reaches = [np.empty(0)]
    for _ in range(contexts):
        drawn = draw(half, Cell(size, 0), random)
        if drawn is not None:
            reaches.append(_reaches(bundle, half.latents[drawn[0]])[0])
    return np.concatenate(reaches)


def measure_masked(bundle: Bundle, half: Half, share: float, contexts: int, seed: int) -> FloatArray:
    """Return a log ratio for each context (c,) with that share of outliers of one other class: of the likelihood of
    the outliers' scores if they are seen, to that if they are masked and score as normal images do.
    """
    random, ratios = np.random.default_rng([seed, round(100 * share)]), []
    for size in SIZES:
        for _ in range(contexts):
            drawn = draw(half, Cell(size, max(round(share * size), 1)), random)
            if drawn is not None:
                ratios.append(_reaches(bundle, half.latents[drawn[0]])[1][drawn[1]].sum())
    return np.array(ratios)


def masked_share(log_ratios: FloatArray) -> float:
    """Return the share of contexts whose outliers are masked, by expectation maximisation over log ratios (c,)."""
    share = 0.5
    for _ in range(ROUNDS):
        share = float(expit(logit(share) - log_ratios).mean())
    return share


def _reaches(bundle: Bundle, latents: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the reaches (n,) of images with latents (n, 2, L) in their own batch, and the evidence there (n,)."""
    units = PopulationUnits.of(bundle.population)
    # The batch's context as the service makes it: probable outliers take no part.
    context = score(latents, bundle.population, estimator=bundle.manifest.default_estimator).context
    scored = with_scores(context, units.points(latents), units)
    assert scored.scores is not None
    assert scored.population_scores is not None
    reaches, ratios = find_reaches(scored.scores, scored.population_scores, estimator_of(context).smallest_scale)
    return reaches, ratios[TAIL]


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
        "",
        "The power of the table's shares that makes these the likeliest, by the size of the context:",
        "",
        *table(
            ("images", *names),
            (
                [f"{size}", *(f"{result['powers'][name][row]:.2f}" for name in names)]
                for row, size in enumerate(result["sizes"])
            ),
        ),
        "",
        "How often outliers of one other class are masked: they score as normal images do. In use, by the share of "
        "outliers: " + ", ".join(f"{value:g} at {share:g}" for share, value in result["masked_in_use"].items()) + ".",
        "",
        *table(
            ("outliers", *names),
            (
                [f"{share:.0%}", *(f"{result['masked'][name][row]:.2f}" for name in names)]
                for row, share in enumerate(result["outliers"])
            ),
        ),
    ]
    return "\n".join(lines) + "\n"
