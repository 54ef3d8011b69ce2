"""The encoder as every peer runs it: one ONNX Runtime session on the file that ENCODER names, one thread a call."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from PIL import Image

# Calls at a time, each with one thread: as many as misfit's networks have.
THREADS = int(os.environ.get("THREADS", "2"))


class Encoder:
    """Encodes images, uint8 (n, H, W, C), to latents, float32 (n, 2, L)."""

    def __init__(self, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(os.environ["ENCODER"], options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        (latents,) = self._session.run(None, {"images": images})
        return latents


def decode(files: Sequence[bytes]) -> np.ndarray:
    """Return image files as uint8 (n, H, W, C)."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


def read_npy(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content))


def write_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
