"""FastAPI with a simple batcher: rows that wait are joined, up to 64, and run in two threads."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from fastapi import FastAPI, Request, Response

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoder import THREADS, Encoder, decode, read_npy, write_npy

MOST_ROWS = 64
app, encoder, pool = FastAPI(), Encoder(), ThreadPoolExecutor(THREADS)
waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
at_work = 0


async def encode(images: np.ndarray) -> np.ndarray:
    result: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
    waiting.append((images, result))
    start()
    return await result


def start() -> None:
    global at_work
    while waiting and at_work < THREADS:
        jobs = [waiting.pop(0)]
        while waiting and sum(len(rows) for rows, _ in jobs) + len(waiting[0][0]) <= MOST_ROWS:
            jobs.append(waiting.pop(0))
        at_work += 1
        asyncio.get_running_loop().create_task(run(jobs))


async def run(jobs: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]) -> None:
    global at_work
    rows = jobs[0][0] if len(jobs) == 1 else np.concatenate([rows for rows, _ in jobs])
    latents = await asyncio.get_running_loop().run_in_executor(pool, encoder, rows)
    start_row = 0
    for images, result in jobs:
        if not result.done():
            result.set_result(latents[start_row : start_row + len(images)])
        start_row += len(images)
    at_work -= 1
    start()


@app.get("/ready")
def ready() -> Response:
    return Response()


@app.post("/encode")
async def encode_array(request: Request) -> Response:
    images = read_npy(await request.body())
    parts = [images[at : at + MOST_ROWS] for at in range(0, len(images), MOST_ROWS)]
    latents = await asyncio.gather(*map(encode, parts))
    return Response(write_npy(np.concatenate(latents)), media_type="application/x-npy")


@app.post("/encode_files")
async def encode_files(request: Request) -> Response:
    form = await request.form(max_files=10_000)
    files = [await file.read() for file in form.getlist("images")]

    async def encode_part(part: list[bytes]) -> np.ndarray:
        return await encode(await asyncio.to_thread(decode, part))

    parts = [files[at : at + MOST_ROWS] for at in range(0, len(files), MOST_ROWS)]
    latents = await asyncio.gather(*map(encode_part, parts))
    return Response(write_npy(np.concatenate(latents)), media_type="application/x-npy")
