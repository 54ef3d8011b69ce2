"""Ray Serve: two replicas behind its HTTP proxy, with its own batching of requests."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoder import THREADS, Encoder, decode, read_npy, write_npy


@serve.deployment(num_replicas=THREADS, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64)
class EncoderDeployment:
    def __init__(self) -> None:
        self.encoder = Encoder()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def encode(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        latents = self.encoder(np.concatenate(inputs))
        return np.split(latents, np.cumsum([len(images) for images in inputs])[:-1])

    async def __call__(self, request: Request) -> Response:
        if request.url.path.endswith("/ready"):
            return Response()
        if request.headers["content-type"].startswith("multipart/"):
            form = await request.form(max_files=10_000)
            images = decode([await file.read() for file in form.getlist("images")])
        else:
            images = read_npy(await request.body())
        return Response(write_npy(await self.encode(images)), media_type="application/x-npy")


if __name__ == "__main__":
    ray.init(
        num_cpus=THREADS,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(EncoderDeployment.bind(), route_prefix="/")
    while True:
        time.sleep(3600)
