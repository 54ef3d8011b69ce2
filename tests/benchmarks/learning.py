"""Memory and time that `misfit learn` takes, by the number of photographs.

    python tests/benchmarks/learning.py --images 2000 --images 100000

The photographs are noisy gradients of 160 x 120 pixels, each different. Memory is the highest resident size of the
process. With --small the backbone is one random layer in place of the one that is shipped, which leaves what learning
itself takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
from measurements import save

MIB = 1024 * 1024
CHANNELS, SIDE, PATCH = 1280, 224, 32
FOLDER = 1000


def write_photographs(directory: Path, count: int) -> None:
    """Write JPEG files in folders of FOLDER each."""
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 160), np.linspace(-1, 1, 120))
    noise = random.normal(0, 12, (16, 120, 160, 3))
    for number in range(count):
        if number % FOLDER == 0:
            (folder := directory / f"{number // FOLDER:04}").mkdir(parents=True)
        slopes = random.normal(0, 40, (3, 2))
        light = 128 + slopes[:, 0] * across[..., None] + slopes[:, 1] * down[..., None]
        pixels = np.clip(light + noise[number % 16], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06}.jpg", quality=85)


def write_small_backbone(path: Path) -> None:
    """Write a graph of one random layer on the means of patches, with as many features as the shipped backbone."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(0, 0.02, (CHANNELS, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["patches"], kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH]),
        helper.make_node("Conv", ["patches", "weights"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["features"]),
    ]
    cells = SIDE // PATCH
    graph = helper.make_graph(
        nodes,
        "patches",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", CHANNELS, cells, cells])],
        [numpy_helper.from_array(weights, "weights")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def measure(photographs: Path, out: Path, backbone: Path | None) -> dict[str, float]:
    """Learn a folder in a process of its own; return its seconds and its highest resident size in MiB."""
    command = [sys.executable, "-m", "service.cli", "learn", str(photographs), "--out", str(out)]
    command += ["--backbone", str(backbone)] if backbone else []
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": time.perf_counter() - started, "resident_mib": usage.ru_maxrss * 1024 / MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, action="append", help="may be given several times")
    parser.add_argument("--small", action="store_true", help="with a backbone of one layer (needs onnx)")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        backbone = Path(scratch) / "small.onnx" if arguments.small else None
        if backbone is not None:
            write_small_backbone(backbone)
        for count in sorted(arguments.images or [2000]):
            photographs = Path(scratch) / str(count)
            write_photographs(photographs, count)
            run = measure(photographs, Path(scratch) / f"bundle{count}", backbone)
            results.append({"images": count, **run})
            rate, resident = count / run["seconds"], run["resident_mib"]
            print(f"{count:>8} photographs: {rate:.0f} a second, {resident:.0f} MiB", flush=True)
    if arguments.out:
        save(arguments.out, {"backbone": "one layer" if arguments.small else "shipped", "runs": results})


if __name__ == "__main__":
    main()
