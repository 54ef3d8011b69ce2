"""The workloads that servers are compared with, and the measurement of one: images a second, waits, CPU of the server.

| workload | clients at a time | images in a request | form |
| --- | --- | --- | --- |
| W1 | 1 | 350 | one tensor |
| W1x4 | 4 | 350 | one tensor |
| W2 | 16 | 8 | one tensor |
| W3 | 1 | 350 | PNG files |
| W4 | 32 | 1 | one tensor |
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

SAMPLE_BATCH = Path(__file__).parents[2] / "data" / "shapes3d_batch.zip"
# A client of a server: sends one request, and returns when the answer is there. Each has a connection of its own.
Send = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    name: str
    clients: int
    images: int
    form: Literal["tensor", "png"] = "tensor"

    @classmethod
    def of(cls, name: str) -> Workload:
        """Return the workload of that name; `CxN` is one of C clients that send tensors of N images."""
        if name in WORKLOADS:
            return WORKLOADS[name]
        clients, _, images = name.partition("x")
        return cls(name, int(clients), int(images))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", 1, 350),
        Workload("W1x4", 4, 350),
        Workload("W2", 16, 8),
        Workload("W3", 1, 350, "png"),
        Workload("W4", 32, 1),
    )
}


@dataclass(frozen=True)
class Measurement:
    """The measurements of one round of one workload at one server.

    cpu_seconds      CPU seconds of all processes of the server for each 1,000 images
    images_a_second  by the clients' clock
    p50, p99         milliseconds of a request
    """

    cpu_seconds: float
    images_a_second: float
    p50: float
    p99: float


def sample_images(count: int) -> NDArray[np.uint8]:
    """Return the sample batch over and over, with a little noise of each image's own: uint8 (count, 64, 64, 3)."""
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        files = [Image.open(batch.open(name)) for name in sorted(batch.namelist()) if name.endswith(".png")]
        known = np.stack([np.asarray(file) for file in files])
    repeated = known[np.arange(count) % len(known)]
    return np.maximum(repeated, 3) - np.random.default_rng(0).integers(0, 4, repeated.shape, np.uint8)


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds of a process and all of its children, or of this process alone where `pid` is None."""
    if pid is None:
        return time.process_time()
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and all of its children, in MiB."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 2**20


def measure(
    workload: Workload, connect: Callable[[], AbstractContextManager[Send]], pid: int | None, seconds: float
) -> Measurement:
    """Have the workload's clients send requests for `seconds`, each with a connection of its own, all starting at once.

    pid  of the server; None where there is no server, and this process does the work

    Raises what a client raises.
    """
    end = time.perf_counter() + seconds

    def run_client(_: int) -> Sequence[float]:
        waits: list[float] = []
        with connect() as send:
            while (began := time.perf_counter()) < end or not waits:
                send()
                waits.append(time.perf_counter() - began)
        return waits

    with ThreadPoolExecutor(workload.clients) as pool:
        spent, began = cpu_seconds(pid), time.perf_counter()
        waits = np.concatenate(list(pool.map(run_client, range(workload.clients))))
        took, spent = time.perf_counter() - began, cpu_seconds(pid) - spent
    images = len(waits) * workload.images
    p50, p99 = 1000 * np.percentile(waits, (50, 99))
    return Measurement(1000 * spent / images, images / took, float(p50), float(p99))
