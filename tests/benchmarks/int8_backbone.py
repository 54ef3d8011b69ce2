"""The default backbone in int8 beside float32: images a second, and AUROC on contexts of photographs.

    python tests/benchmarks/int8_backbone.py COLLECTION [COLLECTION ...]

Static quantization by ONNX Runtime (QDQ, weights by channel), calibrated on the first photographs of each collection.
A collection is a folder with a folder of photographs for each class, as for `python -m train photographs`. Speed is
taken in turns within one run: the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from service.core.detect.scoring import score
from service.inference.features import FeatureNetwork
from service.learning import folder
from train.benchmarks.photograph_arms import CELLS
from train.benchmarks.photographs import BACKBONE, draw, learn_half
from train.provenance import command, commit

RESULT = Path("train/results/photographs/int8.json")
CALIBRATED_ON, TIMED, TURNS = 64, 48, 5


class Reader(CalibrationDataReader):
    """Photographs, eight at a time."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._parts = iter(np.array_split(pixels, max(len(pixels) // 8, 1)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        part = next(self._parts, None)
        return None if part is None else {"images": part}


def quantize(pixels: np.ndarray, out: Path) -> None:
    """Write the int8 graph, calibrated on pixels (n, H, W, 3), to `out`."""
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(BACKBONE), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        Reader(pixels),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def speeds(networks: dict[str, FeatureNetwork], pixels: np.ndarray) -> dict[str, Any]:
    """Return images a second of each network on one thread, and the ratio to float32."""
    rates: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(TURNS):
        for name, network in networks.items():
            started = time.perf_counter()
            network.pooled(pixels)
            rates[name].append(len(pixels) / (time.perf_counter() - started))
    ratio = np.median(np.divide(rates["int8"], rates["float32"]))
    return {
        "images_per_second": {name: round(float(np.median(each)), 1) for name, each in rates.items()},
        "int8_to_float32": round(float(ratio), 3),
    }


def areas(collection: Path, backbone: Path, contexts: int, seed: int) -> dict[str, float]:
    """Return the mean AUROC of every cell, by the bundle's default estimator."""
    from sklearn.metrics import roc_auc_score

    with tempfile.TemporaryDirectory() as scratch:
        bundle, half, _ = learn_half(collection, Path(scratch), seed, backbone)
    result = {}
    for place, cell in enumerate(CELLS):
        random = np.random.default_rng([seed, place])
        drawn = [context for _ in range(contexts) if (context := draw(half, cell, random)) is not None]
        estimator = bundle.manifest.default_estimator
        each = [
            roc_auc_score(truth, score(half.latents[rows], bundle.population, estimator=estimator).outlier_score)
            for rows, truth in drawn
        ]
        if each:
            result[f"{cell.size} images, {cell.outliers} outliers"] = round(float(np.mean(each)), 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--contexts", type=int, default=30, help="of every cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    network = FeatureNetwork(BACKBONE)
    pixels = np.concatenate(
        [folder.read(folder.find(each)[:CALIBRATED_ON], network.image).pixels for each in options.collections]
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "int8.onnx")
        quantize(pixels, path)
        quantized = FeatureNetwork(path)
        before, after = network.pooled(pixels[:TIMED]), quantized.pooled(pixels[:TIMED])
        result = {
            "command": command(),
            "commit": commit(),
            "load_before": os.getloadavg()[0],
            "bytes": {"float32": BACKBONE.stat().st_size, "int8": path.stat().st_size},
            "speed": speeds({"float32": network, "int8": quantized}, pixels[:TIMED]),
            "feature_error_relative": round(float((after - before).std() / before.std()), 4),
            "auroc": {
                each.name: {
                    name: areas(each, backbone, options.contexts, options.seed)
                    for name, backbone in (("float32", BACKBONE), ("int8", path))
                }
                for each in options.collections
            },
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
