"""Write tests/data/exact_bundle: a model whose numbers are the same on every machine.

Run it where torch's environment is: `PYTHONPATH=.:tests/support .venv-train/bin/python tests/tools/exact_bundle.py`.

Trained networks give float32 sums that depend on the processor's vector length. This model sums integers below 2**24,
which float32 holds exactly in any order, and scales each sum once. So tests/contract/test_recorded.py can compare
answers to nine digits wherever it runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from exact import (
    AMPLITUDE,
    BLOCK,
    CHANNELS,
    FEATURES,
    GRID,
    LATENT_STEPS,
    LATENTS,
    LIVE,
    MIDDLE,
    NAMES,
    SIZE,
    patterns,
    pictures,
    random_latents,
)
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.bundle import store
from service.bundle.manifest import FORMAT_VERSION, SALIENCY, ImageSpec, Manifest, Parity
from service.core import latent
from service.core.detect.reconstruction import reconstruction_error
from service.core.population import Familiarity, Population
from service.inference.onnx_runtime import OnnxNetworks

DIRECTORY = Path(__file__).parents[1] / "data" / "exact_bundle"
POPULATION_SIZE = 4000


def _graph(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], *ends: onnx.ValueInfoProto) -> bytes:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "exact", [ends[0]], [ends[1]], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


_IMAGES = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, CHANNELS])
_SUMS = [  # images to sums of blocks (N, GRID, GRID, CHANNELS), each a whole number of at most 4,080
    helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
    helper.make_node("Reshape", ["pixels", "blocks_shape"], ["blocks"]),
    helper.make_node("ReduceSum", ["blocks", "block_axes"], ["sums"], keepdims=0),
]
_SUMS_CONSTANTS = {
    "blocks_shape": np.array([-1, GRID, BLOCK, GRID, BLOCK, CHANNELS]),
    "block_axes": np.array([2, 4]),
}


def encoder() -> bytes:
    """Return the graph: mean is the scaled sum along each pattern, logvar rises with half of it."""
    along = patterns().T
    weights = np.column_stack([2 * along, along])  # (FEATURES, 2L)
    shift = np.repeat([0, -4 * AMPLITUDE * BLOCK**2 * FEATURES], LATENTS)
    scale = np.repeat([1 / (2 * AMPLITUDE * BLOCK**2 * FEATURES), 1 / (AMPLITUDE * BLOCK**2 * FEATURES)], LATENTS)
    constants = _SUMS_CONSTANTS | {
        "flat_shape": np.array([-1, FEATURES]),
        "weights": weights.astype(np.float32),
        "shift": shift.astype(np.float32),
        "scale": scale.astype(np.float32),
        "latents_shape": np.array([-1, 2, LATENTS]),
    }
    nodes = [
        *_SUMS,
        helper.make_node("Reshape", ["sums", "flat_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["along"]),
        helper.make_node("Add", ["along", "shift"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "latents_shape"], ["latents"]),
    ]
    out = helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", 2, LATENTS])
    return _graph(nodes, constants, _IMAGES, out)


def decoder() -> bytes:
    """Return the graph: the sum of the patterns, each as strong as its latent, on grey."""
    constants = {
        "steps": np.float32(LATENT_STEPS),
        "patterns": (AMPLITUDE * patterns()).astype(np.float32),
        "step": np.float32(1 / LATENT_STEPS),
        "middle": np.float32(MIDDLE),
        "low": np.float32(0),
        "high": np.float32(255),
        "grid_shape": np.array([-1, GRID, 1, GRID, 1, CHANNELS]),
        "blocks_shape": np.array([1, GRID, BLOCK, GRID, BLOCK, CHANNELS]),
        "image_shape": np.array([-1, SIZE, SIZE, CHANNELS]),
    }
    nodes = [
        helper.make_node("Mul", ["latents", "steps"], ["many"]),
        helper.make_node("Round", ["many"], ["whole"]),
        helper.make_node("MatMul", ["whole", "patterns"], ["drawn"]),
        helper.make_node("Mul", ["drawn", "step"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("Add", ["rounded", "middle"], ["grey"]),
        helper.make_node("Clip", ["grey", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "grid_shape"], ["grid"]),
        helper.make_node("Expand", ["grid", "blocks_shape"], ["blocks"]),
        helper.make_node("Reshape", ["blocks", "image_shape"], ["images"]),
    ]
    latents = helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", LATENTS])
    return _graph(nodes, constants, latents, _IMAGES)


def saliency() -> bytes:
    """Return the graph: what each block gives to each latent's mean."""
    grids = patterns().reshape(LATENTS, GRID, GRID, CHANNELS)
    constants = _SUMS_CONSTANTS | {
        "patterns": grids.astype(np.float32)[None],
        "latent_axis": np.array([1]),
        "channel_axis": np.array([4]),
        "scale": np.float32(1 / (AMPLITUDE * BLOCK**2 * FEATURES)),
    }
    nodes = [
        *_SUMS,
        helper.make_node("Unsqueeze", ["sums", "latent_axis"], ["one"]),
        helper.make_node("Mul", ["one", "patterns"], ["shares"]),
        helper.make_node("ReduceSum", ["shares", "channel_axis"], ["positions"], keepdims=0),
        helper.make_node("Mul", ["positions", "scale"], ["saliency"]),
    ]
    out = helper.make_tensor_value_info("saliency", TensorProto.FLOAT, ["N", LATENTS, GRID, GRID])
    return _graph(nodes, constants, _IMAGES, out)


def main() -> None:
    random = np.random.default_rng(7)
    graphs = {"encoder.onnx": encoder(), "decoder.onnx": decoder(), SALIENCY: saliency()}
    images = pictures(
        random_latents(random, POPULATION_SIZE),
        random.integers(-12, 13, size=(POPULATION_SIZE, SIZE, SIZE, CHANNELS)),
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model="exact",
        image=ImageSpec(height=SIZE, width=SIZE, channels=CHANNELS),
        latent_dim=LATENTS,
        latents=tuple(
            latent.Latent(
                index=index,
                name=name,
                factor=name if index < LIVE else None,
                mutual_information=2.0 if index < LIVE else None,
                dead=index >= LIVE,
            )
            for index, name in enumerate(NAMES)
        ),
        parity=Parity(batch_sizes=(1,), latents_relative=0, pixels_grey_levels=0, saliency_relative=0),
        metrics={},
        training={},
        data={"name": "patterns", "images": POPULATION_SIZE},
        licence="CC0-1.0",
    )
    # Twice: the population is what the encoder makes of the images, and the encoder is opened from a bundle.
    latents = random_latents(random, POPULATION_SIZE)
    first = Population.from_latents(np.stack([latents, np.zeros_like(latents)], axis=1))
    networks = OnnxNetworks(store.write(DIRECTORY, manifest, graphs, first))
    encoded = networks.encode(images)
    errors = reconstruction_error(images, networks.decode(np.ascontiguousarray(encoded[:, 0])))
    store.write(DIRECTORY, manifest, graphs, Population.from_latents(encoded, Familiarity.of(errors)))
    print(f"{DIRECTORY}: standard deviations {encoded[:, 0].std(axis=0).round(3)}")


if __name__ == "__main__":
    main()
