"""BentoML as documented: a batchable service, and a FastAPI application mounted in front of it.

By default, BentoML closes the connections between the two after 100 calls or 5 minutes, whatever is still under way on
them: small requests then end in errors 500.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bentoml
import numpy as np
from fastapi import FastAPI, Request, Response

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoder import THREADS, Encoder, decode, read_npy, write_npy

app = FastAPI()
NEVER_RECONNECT = {"max_requests": 2**31, "max_age": 1e9}


@bentoml.service(workers=1, threads=THREADS, runner_connection=NEVER_RECONNECT)
class Encoders:
    def __init__(self) -> None:
        self.encoder = Encoder(THREADS)

    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=60_000)
    def encode(self, images: np.ndarray) -> np.ndarray:
        return self.encoder(images)


@bentoml.service
@bentoml.asgi_app(app)
class Peer:
    encoders = bentoml.depends(Encoders)

    @app.post("/encode")
    async def encode_array(self, request: Request) -> Response:
        latents = await self.encoders.to_async.encode(read_npy(await request.body()))
        return Response(write_npy(latents), media_type="application/x-npy")

    @app.post("/encode_files")
    async def encode_files(self, request: Request) -> Response:
        form = await request.form(max_files=10_000)
        images = decode([await file.read() for file in form.getlist("images")])
        return Response(write_npy(await self.encoders.to_async.encode(images)), media_type="application/x-npy")
