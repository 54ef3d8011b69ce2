"""Add an int8 encoder to a bundle: python -m export.int8 BUNDLE

The convolutions after the first are quantized by ONNX Runtime (static, QDQ, weights by channel). The first convolution
and the layers after the convolutions stay float32: they are cheap, and what they lose the latents lose. Activations are
calibrated on what the decoder draws of the population's sample: few of them are cut off, so that all others get finer
steps. What it loses is measured, and written into the manifest (`Int8`). A service runs it where MISFIT_PRECISION
is int8, or auto and it loses nothing.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from export import int8_contexts
from export.command import GraphRefused, add_to_bundle
from service.bundle import store
from service.bundle.manifest import ENCODER, ENCODER_INT8
from service.bundle.store import Bundle
from service.errors import InvalidInput
from service.inference.onnx_runtime import OnnxNetworks, open_session
from service.inference.precision import measure_difference

CALIBRATED_ON, CALIBRATED_AT_A_TIME = 1_000, 25
# Per cent of the activations that are not cut off. On rendered frames, the latents then differ from float32's by 0.006
# standard deviations; by 0.009 where none are cut off, and 0.007 at 99.99.
PERCENTILE = 99.999
# Root mean squared difference of the latents' means from float32's, in standard deviations of the population.
LARGEST_DIFFERENCE = 0.02


class PrecisionError(GraphRefused):
    """The int8 encoder differs too much from the float32 one, so it must not be written."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images (n, H, W, C), some at a time."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._parts: Iterator[NDArray[np.uint8]] = iter(
            np.array_split(images, max(len(images) // CALIBRATED_AT_A_TIME, 1))
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        part = next(self._parts, None)
        return None if part is None else {"images": part}


def add_int8(directory: Path, *, contexts: int = int8_contexts.CONTEXTS) -> Bundle:
    """Quantize the encoder of the bundle at `directory`, and write the bundle again with both. Its bundle_id stays.

    What it loses is measured on so many `contexts`, where they can be rendered.

    Raises InvalidInput where there is nothing to quantize or to calibrate on, PrecisionError where the latents differ
    by more than LARGEST_DIFFERENCE, and what `store.load` raises. After an error the bundle stays as it is.
    """
    bundle = store.load(directory)
    graph = onnx.load(directory / ENCODER).graph
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    sample = bundle.population.sample
    if len(convolutions) < 2 or sample is None or not bundle.manifest.capabilities.can_decode:
        raise InvalidInput(
            f"{directory} cannot be quantized: its encoder has {len(convolutions)} convolutions, and its decoder is "
            f"{'there' if bundle.manifest.capabilities.can_decode else 'missing'}.",
            "Name a bundle of convolutions with decoder.onnx and a population with a sample.",
        )
    networks = OnnxNetworks(bundle)
    images = networks.decode(sample[:CALIBRATED_ON].astype(np.float32))
    with tempfile.TemporaryDirectory() as scratch:
        prepared, quantized = Path(scratch, "prepared.onnx"), Path(scratch, ENCODER_INT8)
        quant_pre_process(directory / ENCODER, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=convolutions[:1],
            op_types_to_quantize=["Conv"],
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
        difference = measure_difference(bundle, quantized)
        session, content = open_session(quantized, with_gpu=False), quantized.read_bytes()
    if not difference <= LARGEST_DIFFERENCE:
        raise PrecisionError(
            f"The latents of the int8 encoder differ by {difference:.4f} standard deviations of the population; at "
            f"most {LARGEST_DIFFERENCE} are let through."
        )
    loss, data = None, str(bundle.manifest.data.get("name"))
    if data in int8_contexts.RENDERED:
        rounded = partial(_encode, session)
        loss = int8_contexts.measure(data, bundle.population, networks.encode, rounded, contexts)
    print(f"difference {difference:.4f}, loss {loss}", file=sys.stderr)
    return store.add_int8(bundle, content, difference, loss)


def _encode(session: InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the latents (n, 2, L) of images (n, H, W, C)."""
    return np.asarray(session.run(None, {"images": images})[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Add an int8 encoder to one bundle and return the exit code."""
    logging.getLogger().setLevel(logging.ERROR)  # of what the quantization recommends
    return add_to_bundle("python -m export.int8", __doc__.splitlines()[0], add_int8, "an int8 encoder", arguments)


if __name__ == "__main__":
    sys.exit(main())
