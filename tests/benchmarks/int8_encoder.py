"""The int8 encoder of the shipped bundle beside the float32 one: milliseconds an image, AUROC and flags.

    python tests/benchmarks/int8_encoder.py --out FILE

Contexts are of rendered 3D Shapes with misfits one level off. Speed is CPU time of one thread, in turns within one run.
A third row is float32 with noise added to its latents: how many flags the least difference changes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from export.int8_contexts import CONTEXTS, MISFITS, SIZE, contexts
from service.bundle import store
from service.core.detect.scoring import score
from service.inference.onnx_runtime import OnnxNetworks
from train.benchmarks.contexts import summarize
from train.data.shapes3d import dataset

sys.path.append(str(Path(__file__).parents[1] / "support"))
from measurements import save

BUNDLE = Path("service/bundles/shapes3d")
# Noise of so many standard deviations of the population is a twelfth of what int8 loses.
NOISY, NOISE = "fp32 with noise", 0.0005
BATCHES, TIMED, TURNS = (1, 8, 32), 128, 5


def time_images(networks: dict[str, OnnxNetworks], images: np.ndarray) -> dict[str, list[float]]:
    """Return milliseconds of CPU an image at each size of BATCHES, the least of all turns, by precision."""
    best = {name: [np.inf] * len(BATCHES) for name in networks}
    for _ in range(TURNS):
        for place, size in enumerate(BATCHES):
            for name, each in networks.items():
                began = time.thread_time()
                for start in range(0, TIMED, size):
                    each.run_tile("encode", images[start : start + size])
                spent = 1000 * (time.thread_time() - began) / TIMED
                best[name][place] = min(best[name][place], round(spent, 3))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, default=CONTEXTS)
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    bundles = {precision: store.load(BUNDLE, precision) for precision in ("fp32", "int8")}
    networks = {name: OnnxNetworks(bundle) for name, bundle in bundles.items()}
    population = bundles["fp32"].population
    names = [*networks, NOISY]
    outcomes: dict[str, dict[str, list[float]]] = {name: {"auroc": [], "found": [], "changed": []} for name in names}
    spread, off = np.sqrt(np.diag(population.covariance)), []
    for index, (context, images) in enumerate(contexts("shapes3d", arguments.contexts)):
        latents = {name: each.encode(images) for name, each in networks.items()}
        noise = np.random.default_rng([13, index]).normal(0, NOISE, latents["fp32"][:, 0].shape)
        latents[NOISY] = latents["fp32"] + np.float32(spread * noise)[:, None] * [[1], [0]]
        off.append((latents["int8"] - latents["fp32"])[:, 0][:, population.live_dims] / spread[population.live_dims])
        scores = {name: score(each, population) for name, each in latents.items()}
        for name, outcome in outcomes.items():
            flags = scores[name].is_outlier
            outcome["auroc"].append(float(roc_auc_score(context.is_outlier, scores[name].outlier_score)))
            outcome["found"].append(float(flags[context.is_outlier].mean()))
            outcome["changed"].append(float((flags != scores["fp32"].is_outlier).mean()))
    difference = float(np.sqrt(np.square(off).mean()))
    factors = np.unravel_index(np.arange(TIMED) * 3001, dataset.FACTOR_SIZES)
    milliseconds = time_images(networks, dataset.frames(np.stack(factors, axis=1)))
    rows: list[dict[str, Any]] = [
        {
            "precision": name,
            "milliseconds": dict(zip(map(str, BATCHES), milliseconds[name], strict=True)) if name in networks else None,
            "auroc": summarize(outcome["auroc"]),
            "found": float(np.mean(outcome["found"])),
            "flags_changed": float(np.mean(outcome["changed"])),
            "error_of_changed": float(np.std(outcome["changed"]) / len(outcome["changed"]) ** 0.5),
            "contexts_changed": float(np.mean(np.array(outcome["changed"]) > 0)),
        }
        for name, outcome in outcomes.items()
    ]
    for row in rows:
        print(row)
    print(f"the latents' means of int8 differ by {difference:.4f} standard deviations")
    save(
        arguments.out,
        {
            "contexts": arguments.contexts,
            "images": SIZE,
            "misfits": MISFITS,
            "difference": difference,
            "noise": NOISE,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
