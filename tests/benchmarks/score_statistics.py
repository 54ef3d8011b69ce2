"""Milliseconds of CPU that the statistics of one request take, by its images and its estimator: latents to scores.

    python tests/benchmarks/score_statistics.py --out FILE

Batches are drawn from the sample batch's images, each with a little noise of its own. All cells of a turn are measured
one after the other; the figures are medians over the turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from service.bundle import store
from service.core.detect.scoring import score
from service.inference.onnx_runtime import OnnxNetworks

sys.path.append(str(Path(__file__).parents[1] / "support"))
sys.path.append(str(Path(__file__).parent / "peers"))
from measurements import save
from workloads import sample_images

BUNDLE = Path("service/bundles/shapes3d")
ESTIMATORS = ("ensemble", "density_ratio", "mixture", "robust")
SIZES = (1, 2, 3, 4, 8, 16, 32, 100, 350)
IMAGES, SECONDS, FEWEST_CALLS = 700, 0.15, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    bundle = store.load(BUNDLE)
    latents = OnnxNetworks(bundle).encode(sample_images(IMAGES))
    threadpool_limits(limits=1, user_api="blas")  # as the service has it
    rng = np.random.default_rng(0)
    measured: dict[tuple[str, int], list[float]] = {(name, size): [] for name in ESTIMATORS for size in SIZES}
    for _ in range(arguments.turns):
        for (estimator, size), turns in measured.items():
            began, calls = time.thread_time(), 0
            while calls < FEWEST_CALLS or time.thread_time() < began + SECONDS:
                score(latents[rng.permutation(IMAGES)[:size]], bundle.population, estimator=estimator)
                calls += 1
            turns.append(1000 * (time.thread_time() - began) / calls)
    rows = {name: {str(size): round(median(measured[name, size]), 2) for size in SIZES} for name in ESTIMATORS}
    print("| estimator | " + " | ".join(map(str, SIZES)) + " |\n" + "| --- " * (len(SIZES) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |")
    save(arguments.out, {"turns": arguments.turns, "milliseconds": rows})


if __name__ == "__main__":
    main()
