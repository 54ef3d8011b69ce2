"""/score of a request of photographs over HTTP, as a share of decoding and the backbone alone in this process.

    python tests/benchmarks/photograph_rate.py FOLDER --bundle PATH [--images 350] [--rounds 6] [--out FILE.json]

The first images of FOLDER become JPEGs of 640 x 480 pixels. Every round sends them in one request, and has them decoded
and encoded by `engine_share.encode_all`, in turns, with networks and workers that are there: a share is what the latter
takes over what the request takes, of wall clock. The service has its defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
from engine_share import encode_all
from measurements import save
from serving import serve

from service.bundle.store import Bundle
from service.client.client import Client
from service.decoding.pool import DecodePool
from service.inference.local import LocalNetworks
from service.offline.in_process import load_bundle, local_settings
from service.offline.inputs.source_table import SourceTable
from service.offline.inputs.sources import find_sources

SIZE, QUALITY = (640, 480), 90
# The first requests start workers and let adaptive batching settle.
UNMEASURED = 2


def write_photographs(folder: Path, count: int, to: Path) -> list[Path]:
    """Write the first `count` images below `folder` as JPEGs."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))[:count]
    paths = [to / f"{number:03}.jpg" for number in range(len(files))]
    for file, path in zip(files, paths, strict=True):
        with Image.open(file) as image:
            image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=QUALITY)
    return paths


async def measure(
    bundle: Bundle, sources: SourceTable, client: Client, paths: list[Path], rounds: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of every round: of decoding and the backbone alone, and of the request."""
    networks, decoder = LocalNetworks(bundle), DecodePool(local_settings())
    alone, request = [], []
    try:
        for number in range(UNMEASURED + rounds):
            began = time.monotonic()
            await encode_all(bundle, sources, networks, decoder)
            between = time.monotonic()
            await asyncio.to_thread(client.score, paths)
            ended = time.monotonic()
            if number >= UNMEASURED:
                alone.append(between - began)
                request.append(ended - between)
    finally:
        decoder.close()
    return alone, request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--images", type=int, default=350)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        photographs = Path(scratch) / "photographs"
        photographs.mkdir()
        paths = write_photographs(arguments.folder, arguments.images, photographs)
        sources = find_sources([str(photographs)]).images
        environment = {"MISFIT_BUNDLE": str(arguments.bundle.resolve())}
        with serve(Path(scratch) / "log", environment) as served, Client(served.url, timeout=600) as client:
            alone, request = asyncio.run(measure(bundle, sources, client, paths, arguments.rounds))
    results = {
        "images": len(paths),
        "rounds": arguments.rounds,
        "decoding and backbone: images per second": round(len(paths) / median(alone)),
        "/score: images per second": round(len(paths) / median(request)),
        "share": round(median(one / other for one, other in zip(alone, request, strict=True)), 3),
    }
    print(results)
    save(arguments.out, results)


if __name__ == "__main__":
    main()
