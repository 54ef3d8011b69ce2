"""PyTriton: two instances of the model, Triton's own dynamic batching. Files come as one tensor of bytes each."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoder import THREADS, Encoder, decode


def make_encode():
    encoder = Encoder()

    @batch
    def encode(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"latents": encoder(images)}

    return encode


def make_encode_files():
    encoder = Encoder()

    @batch
    def encode_files(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"latents": encoder(decode(images[:, 0].tolist()))}

    return encode_files


if __name__ == "__main__":
    # Triton's processes load the library of the first Python 3.11 that the system finds, with this one's modules.
    libraries = [str(sysconfig.get_config_var("LIBDIR")), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    port, grpc_port = int(sys.argv[1]), int(sys.argv[2])
    config = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=grpc_port, metrics_port=grpc_port + 1000)
    batching = ModelConfig(max_batch_size=1024, batcher=DynamicBatcher(max_queue_delay_microseconds=500))
    outputs = [Tensor(name="latents", dtype=np.float32, shape=(2, -1))]
    triton = Triton(config=config)
    images = [Tensor(name="images", dtype=np.uint8, shape=(-1, -1, -1))]
    functions = [make_encode() for _ in range(THREADS)]
    triton.bind("encoder", functions, inputs=images, outputs=outputs, config=batching)
    files = [Tensor(name="images", dtype=np.bytes_, shape=(1,))]
    functions = [make_encode_files() for _ in range(THREADS)]
    triton.bind("encoder_files", functions, inputs=files, outputs=outputs, config=batching)
    triton.serve()
