"""ONNX Runtime without a server, in the process of the clients: decoding and the network, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import Send, Workload

sys.path.append(str(Path(__file__).parent / "apps"))
import encoder
from ways import Connect

import bodies  # isort: skip - of tests/support, which `ways` adds to the path

# Rows of one call: the best of several sizes, as misfit's tiles.
ROWS = 32


@cache
def _open(file: Path) -> tuple[Any, ThreadPoolExecutor]:
    os.environ["ENCODER"] = str(file)
    return encoder.Encoder(), ThreadPoolExecutor(encoder.THREADS)


def in_process(file: Path, workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int) -> Connect:
    """Run the encoder in `file` on the images, or on PNG files of them, in as many threads as every peer has."""
    run, pool = _open(file)
    content: Any = list(bodies.image_files(images).values()) if workload.form == "png" else images
    parts = [content[at : at + ROWS] for at in range(0, len(content), ROWS)]

    def encode(part: Any) -> NDArray[np.float32]:
        return run(encoder.decode(part) if workload.form == "png" else part)

    @contextmanager
    def connect() -> Iterator[Send]:
        yield lambda: np.concatenate(list(pool.map(encode, parts)))

    return connect
