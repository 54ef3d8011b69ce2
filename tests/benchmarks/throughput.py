"""Images a second through /score, over HTTP and gRPC, beside the same pipeline in this process, /explain and /edit.

    python tests/benchmarks/throughput.py

Every round measures each way once, so that whatever else the machine does weighs on all of them alike;
each ratio is the median over the rounds. The in-process pipeline starts from the npy body, or from the
multipart body, just as the service does. /explain names the top three latents and draws heat maps of what is
flagged; /edit makes 25 counterfactuals.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import zipfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from statistics import median

import grpc
import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
import calls
from serving import Served, serve

from service.api.options import ScoreOptions
from service.bundle import store
from service.inference.local import LocalNetworks
from service.pipeline.pipeline import Pipeline
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.http.body_parsers import parse_images

IMAGES = 350
BOUNDARY = "misfit-benchmark"
SAMPLE_BATCH = Path(__file__).parents[1] / "data" / "shapes3d_batch.zip"
EDITED = 25
REASONS = {
    "/explain": "/explain?attributions=top&top=3",
    "/edit": f"/edit?which={','.join(map(str, range(EDITED)))}",
}
Body = tuple[str, bytes]  # content type, content


def make_images(shape: tuple[int, int, int]) -> np.ndarray:
    """The sample batch over and over: of every 60 images four are misfits, three of them flagged."""
    height, width, channels = shape
    mode = "RGB" if channels == 3 else "L"
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        files = [Image.open(batch.open(name)) for name in sorted(batch.namelist()) if name.endswith(".png")]
        frames = [np.asarray(file.convert(mode).resize((width, height))).reshape(shape) for file in files]
    return np.stack([frames[number % len(frames)] for number in range(IMAGES)])


def npy_body(images: np.ndarray) -> Body:
    buffer = BytesIO()
    np.save(buffer, images)
    return "application/x-npy", buffer.getvalue()


def png_body(images: np.ndarray) -> Body:
    body = BytesIO()
    for number, pixels in enumerate(images):
        disposition = f'form-data; name="images"; filename="{number}.png"'
        body.write(f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode())
        Image.fromarray(pixels.squeeze()).save(body, "PNG")
        body.write(b"\r\n")
    body.write(f"--{BOUNDARY}--\r\n".encode())
    return f"multipart/form-data; boundary={BOUNDARY}", body.getvalue()


def post(served: Served, path: str, body: Body, requests: int) -> None:
    connection = HTTPConnection("127.0.0.1", served.port)
    for _ in range(requests):
        connection.request("POST", path, body[1], {"Content-Type": body[0]})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(response.read().decode())
        response.read()
    connection.close()


def over_http(served: Served, path: str, body: Body, clients: int, requests: int) -> float:
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda _: post(served, path, body, requests), range(clients)))
        return clients * requests * IMAGES / (time.perf_counter() - start)


def over_grpc(served: Served, message: bytes, clients: int, requests: int) -> float:
    """As `over_http`: the request is serialised beforehand, and nobody looks into the answer."""

    def client(_: int) -> None:
        with grpc.insecure_channel(
            served.grpc_target, (*calls.UNLIMITED, ("grpc.use_local_subchannel_pool", 1))
        ) as channel:
            score = channel.unary_unary("/misfit.v1.MisfitService/Score")
            for _ in range(requests):
                score(message)

    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(client, range(clients)))
        return clients * requests * IMAGES / (time.perf_counter() - start)


async def in_process(pipeline: Pipeline, body: Body, clients: int, requests: int) -> float:
    async def client() -> None:
        for _ in range(requests):
            request = await asyncio.to_thread(parse_images, body[0], {}, body[1], pipeline.settings, ScoreOptions)
            await pipeline.score(request)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * requests * IMAGES / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=4, help="requests of each client in a round")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4], help="requests under way at a time")
    arguments = parser.parse_args()

    settings = Settings()
    loaded = store.load(settings.bundle_directory)
    pipeline = Pipeline(loaded, LocalNetworks(loaded), settings)
    images = make_images(loaded.manifest.image.shape)
    bodies = {"npy": npy_body(images), "png": png_body(images)}
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "log") as served:
        ways: dict[str, Callable[[int, int], Awaitable[float]]] = {}
        for name, body in bodies.items():
            ways[f"in process, {name}"] = partial(in_process, pipeline, body)
            ways[f"/score, {name}"] = partial(asyncio.to_thread, over_http, served, "/score", body)
        message = pb.ScoreRequest(images=calls.tensor(images)).SerializeToString()
        ways["Score, tensor"] = partial(asyncio.to_thread, over_grpc, served, message)
        for name, path in REASONS.items():
            ways[name] = partial(asyncio.to_thread, over_http, served, path, bodies["npy"])
        for clients in arguments.clients:
            rates = asyncio.run(measure(ways, clients, arguments.requests, arguments.rounds))
            print(f"\n{clients} request(s) of {IMAGES} images under way at a time")
            for way, measured in rates.items():
                print(f"  {way:<18} {median(measured):7.0f} images/s")
            for name, base in (("npy", "npy"), ("png", "png"), ("png", "npy")):
                ratios = np.divide(rates[f"/score, {name}"], rates[f"in process, {base}"])
                print(f"  /score {name} : in process {base} = {median(ratios):.2f}")
            for base in ("in process, npy", "/score, npy"):
                ratios = np.divide(rates["Score, tensor"], rates[base])
                print(f"  gRPC tensor : {base} = {median(ratios):.2f}")
            for name in REASONS:
                times = np.divide(rates["/score, npy"], rates[name])
                print(f"  time of {name} : time of /score = {median(times):.2f}")


async def measure(
    ways: dict[str, Callable[[int, int], Awaitable[float]]], clients: int, requests: int, rounds: int
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():
        await way(clients, 2)  # connections, caches and BentoML's own tuning settle
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(await way(clients, requests))
    return rates


if __name__ == "__main__":
    main()
