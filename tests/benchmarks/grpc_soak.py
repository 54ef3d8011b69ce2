"""How much memory a long stream takes: the service's resident growth while it scores one batch of 100,000 images.

    python tests/benchmarks/grpc_soak.py

The images are the sample batch over and over, with a little noise of their own. Growth is the highest resident size of
each process during the stream, less its size after a first request that has warmed everything up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
import calls
from measurements import save
from serving import serve

from service.protos.misfit.v1 import misfit_pb2 as pb

SAMPLE_BATCH = Path(__file__).parents[1] / "data" / "shapes3d_batch.zip"
MIB = 1024 * 1024


def chunks(count: int, size: int) -> Iterator[pb.ScoreStreamRequest]:
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        files = [Image.open(batch.open(name)) for name in sorted(batch.namelist()) if name.endswith(".png")]
        frames = np.stack([np.asarray(file) for file in files])
    rng = np.random.default_rng(0)
    for start in range(0, count, size):
        repeated = frames[np.arange(start, min(start + size, count)) % len(frames)]
        yield pb.ScoreStreamRequest(
            images=calls.tensor(np.maximum(repeated, 3) - rng.integers(0, 4, repeated.shape, np.uint8))
        )


class Watch:
    """The highest resident size of each process, until stopped."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self._stopped = threading.Event()
        self.highest = [process.memory_info().rss for process in processes]
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.05):
            sizes = [process.memory_info().rss for process in self._processes]
            self.highest = [max(pair) for pair in zip(self.highest, sizes, strict=True)]

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=500, help="images in a message")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    limits = {"MISFIT_MAX_STREAM_IMAGES": str(arguments.images), "MISFIT_TIMEOUT_SECONDS": "3600"}
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "log", limits) as served:
        processes = psutil.Process(served.process.pid).children()
        names = ["Inference" if "Inference" in process.cmdline() else "Misfit" for process in processes]
        with calls.stub(served.grpc_target) as stub:
            list(stub.ScoreStream(chunks(2000, arguments.chunk)))
            before = [process.memory_info().rss for process in processes]
            watch, start, items = Watch(processes), time.perf_counter(), 0
            for piece in stub.ScoreStream(chunks(arguments.images, arguments.chunk)):
                items += len(piece.items)
            seconds = time.perf_counter() - start
            watch.stop()
        print(f"{items} images in one stream, {arguments.chunk} a message: {items / seconds:.0f} images/s")
        for name, low, high in zip(names, before, watch.highest, strict=True):
            print(f"  {name:<10} {low / MIB:6.0f} MiB before, {high / MIB:6.0f} at most: +{(high - low) / MIB:.0f} MiB")
        print(f"  together: +{(sum(watch.highest) - sum(before)) / MIB:.0f} MiB")
        growth = {
            name: {"before_mib": low / MIB, "highest_mib": high / MIB}
            for name, low, high in zip(names, before, watch.highest, strict=True)
        }
        save(arguments.out, {"images": items, "images_a_message": arguments.chunk, "processes": growth})


if __name__ == "__main__":
    main()
