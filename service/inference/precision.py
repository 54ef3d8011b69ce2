"""The precision in which this machine runs a bundle's encoder: float32, or int8 where it computes that as it should.

CPUs without VNNI add products of 8 bits in 16, which overflow: such a CPU would answer otherwise under the same
bundle_id. So a few images are encoded in both precisions, and the difference is compared with what the export measured.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from service.bundle import store
from service.bundle.manifest import DECODER, ENCODER, ENCODER_INT8
from service.bundle.store import Bundle, Precision
from service.core.types import Float32Array
from service.errors import BundleIncompatible
from service.images.spec import Uint8Array
from service.inference.hardware import has_gpu

# Images of the population's sample that are drawn for the check, and how many are run at a time.
CHECKED, AT_A_TIME = 64, 32
# The difference may be so many times that of the export: integers are exact, and what is left is rounding.
TOLERANCE = 1.25

logger = logging.getLogger(__name__)


def load(directory: Path, precision: Precision) -> Bundle:
    """Read and verify the bundle at `directory` to be run in `precision`.

    "auto" is int8 where the export found that it loses nothing, there is no GPU, and this CPU computes it as the export
    did. Raises what `store.load` raises, and BundleIncompatible where int8 was asked for and this CPU does not.
    """
    bundle = store.load(directory, precision)
    if bundle.encoder != ENCODER_INT8:
        return bundle
    if has_gpu():
        if precision == "int8":
            return bundle
        logger.info("%s runs in fp32: GPUs gain nothing by int8", directory)
        return store.load(directory, "fp32")
    int8 = bundle.manifest.int8
    assert int8 is not None, "the bundle has such an encoder"
    difference = measure_difference(bundle)
    if difference <= TOLERANCE * int8.difference:
        return bundle
    reason = (
        f"this CPU computes int8 otherwise than the one that verified it: latents differ from float32's by "
        f"{difference:.4f} standard deviations, {int8.difference:.4f} at export"
    )
    if precision == "int8":
        raise BundleIncompatible(
            f"MISFIT_PRECISION is int8, and {reason}.",
            "Serve it with MISFIT_PRECISION=fp32, or on a CPU with VNNI.",
        )
    logger.warning("%s runs in fp32: %s", directory, reason)
    return store.load(directory, "fp32")


def measure_difference(bundle: Bundle, int8: Path | None = None) -> float:
    """Return the root mean squared difference of the latents' means in int8 from those in float32, over images that the
    decoder draws, in standard deviations of the population.

    int8  the encoder's file, by default the bundle's own
    """
    from service.inference.onnx_runtime import open_session  # with ONNX Runtime, which fp32 may not need here

    population, directory = bundle.population, bundle.directory
    assert population.sample is not None, "only such a bundle gets an int8 encoder"
    drawn, own, quantized = (
        open_session(path, with_gpu=False)
        for path in (directory / DECODER, directory / ENCODER, int8 or directory / ENCODER_INT8)
    )
    live, off = population.live_dims, []
    sample: Float32Array = population.sample[:CHECKED].astype(np.float32)
    for start in range(0, len(sample), AT_A_TIME):
        images: Uint8Array = drawn.run(None, {"latents": sample[start : start + AT_A_TIME]})[0]
        exact, rounded = (session.run(None, {"images": images})[0][:, 0][:, live] for session in (own, quantized))
        off.append((rounded - exact) / np.sqrt(np.diag(population.covariance))[live])
    return float(np.sqrt(np.square(np.concatenate(off)).mean()))
