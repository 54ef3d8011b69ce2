"""What a pod needs: CPU seconds an image, and memory an image in flight, of the real service over HTTP.

    python tests/benchmarks/sizing.py

CPU is the time that all of the service's processes were given, so that what else the machine does matters little;
images a second on one core are its inverse. Memory is the highest resident size of the processes together, less what
they take once a first request has warmed them up, over the images of one request.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
from bodies import Body, encoded, npy, zipped
from grpc_soak import Watch
from measurements import save
from serving import Served, serve

SAMPLE_BATCH = Path(__file__).parents[1] / "data" / "shapes3d_batch.zip"
MIB = 1024 * 1024


def frames(count: int) -> np.ndarray:
    """The sample batch over and over, with a little noise of each image's own: uint8 (count, H, W, C)."""
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        files = [Image.open(batch.open(name)) for name in sorted(batch.namelist()) if name.endswith(".png")]
        known = np.stack([np.asarray(file) for file in files])
    repeated = known[np.arange(count) % len(known)]
    return np.maximum(repeated, 3) - np.random.default_rng(0).integers(0, 4, repeated.shape, np.uint8)


def as_npy(count: int) -> Body:
    return "application/x-npy", npy(frames(count))


def as_files(count: int) -> Body:
    files = {f"{index:05}.png": encoded(image) for index, image in enumerate(frames(count))}
    return "application/zip", zipped(files, zipfile.ZIP_STORED)


def post(served: Served, path: str, body: Body) -> None:
    connection = HTTPConnection("127.0.0.1", served.port, timeout=600)
    connection.request("POST", path, body[1], {"Content-Type": body[0]})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer[:1000]
    connection.close()


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="images in one request")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    count, rows = arguments.images, []
    limits = {"MISFIT_MAX_IMAGES": str(count), "MISFIT_MAX_ROWS_IN_FLIGHT": str(2 * count)}
    print(f"{'request':34} {'images':>7} {'body MiB':>9} {'images/core-s':>14} {'KiB an image':>13} {'peak MiB':>9}")
    # A service of its own for each kind of request: memory that one has freed would hide what the next one takes.
    for path, make, size in (
        ("/score?foreign=off", as_npy, count),
        ("/score", as_npy, count),
        ("/score", as_files, count),
        ("/explain", as_npy, count // 10),
    ):
        with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "log", limits) as served:
            processes = psutil.Process(served.process.pid).children()
            post(served, path, make(500))
            body, before, spent = make(size), sum(p.memory_info().rss for p in processes), cpu_seconds(processes)
            watch = Watch(processes)
            post(served, path, body)
            watch.stop()
            seconds, peak = cpu_seconds(processes) - spent, sum(watch.highest)
        row = {
            "request": f"{path} {body[0].rpartition('/')[2]}",
            "images": size,
            "body_mib": len(body[1]) / MIB,
            "images_per_core_second": size / seconds,
            "kib_per_image": (peak - before) / 1024 / size,
            "peak_mib": peak / MIB,
        }
        rows.append(row)
        print("{:34} {:7} {:9.1f} {:14.0f} {:13.1f} {:9.0f}".format(*row.values()), flush=True)
    save(arguments.out, rows)


if __name__ == "__main__":
    main()
