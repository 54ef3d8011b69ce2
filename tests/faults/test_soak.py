"""Ten minutes (MISFIT_SOAK_SECONDS) of everything at once: memory, file descriptors and temporary files stay flat."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

import bodies
import calls
import grpc
import httpx
import numpy as np
import psutil
from serving import serve

from service.protos.misfit.v1 import misfit_pb2 as pb

SECONDS = float(os.environ.get("MISFIT_SOAK_SECONDS", "600"))
SAMPLE_SECONDS = 1.0
REST_SECONDS = 0.05  # of each client between two requests: a load, not an overload
CALL_SECONDS = 120
MIB = 1024 * 1024
# Between the second quarter and the last, by the median: what one request more or less takes is no growth.
MOST_GROWTH = {"memory": 24 * MIB, "descriptors": 8, "files": 4, "file_bytes": MIB}


@dataclass(frozen=True)
class Sample:
    memory: int  # resident, of all processes
    descriptors: int
    files: int  # in the service's own temporary directory
    file_bytes: int


def sample(processes: list[psutil.Process], scratch: Path) -> Sample:
    stats = [path.stat() for path in scratch.rglob("*") if path.is_file()]
    return Sample(
        memory=sum(process.memory_info().rss for process in processes),
        descriptors=sum(process.num_fds() for process in processes),
        files=len(stats),
        file_bytes=sum(file.st_blocks * 512 for file in stats),
    )


class Load:
    """Threads that each send one kind of request over and over; every answer is checked for its status."""

    def __init__(self, kinds: dict[str, Callable[[int], bool]]) -> None:
        """A kind sends its `number`-th request, and says whether it ended as it must."""
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=kind) for kind in kinds.items()]
        self.sent = dict.fromkeys(kinds, 0)
        self.failed: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, send: Callable[[int], bool]) -> None:
        for number in itertools.count():
            if self._stopping.wait(REST_SECONDS):
                return
            try:
                as_it_must = send(number)
            except (httpx.HTTPError, grpc.RpcError, OSError) as error:
                self.failed.append(f"{name}: {error!r}")
                continue
            self.sent[name] += 1
            if not as_it_must:
                self.failed.append(name)


def kinds_of(served, images: np.ndarray, stub, client: httpx.Client) -> dict[str, Callable[[int], bool]]:
    """Good requests of several sizes, forms and transports, bad ones, and clients that leave."""
    files = list(bodies.image_files(images).values())
    rng = np.random.default_rng(0)

    def post(path: str, body: bodies.Body) -> int:
        return client.post(path, content=body[1], headers={"Content-Type": body[0]}).status_code

    def array(number: int) -> bool:
        return post("/score", bodies.as_npy(np.resize(images, (1 + 97 * number % 400, *images.shape[1:])))) == 200

    def form(number: int) -> bool:
        return post("/explain", bodies.as_form([("images", f"{at}.png", file) for at, file in enumerate(files)])) == 200

    def edit(number: int) -> bool:
        return post("/edit?which=all", bodies.as_json(files[: 2 + number % 8])) == 200

    def score(number: int) -> bool:
        return len(stub.Score(pb.ScoreRequest(images=calls.tensor(images)), timeout=CALL_SECONDS).items) == len(images)

    def stream(number: int) -> bool:
        chunks = (pb.ScoreStreamRequest(images=calls.tensor(images)) for _ in range(5))
        return sum(len(piece.items) for piece in stub.ScoreStream(chunks, timeout=CALL_SECONDS)) == 5 * len(images)

    def malformed(number: int) -> bool:
        return post("/score", bodies.as_zip({"a.png": rng.bytes(300), "b.jpg": files[0][: rng.integers(70)]})) == 422

    def unreadable(number: int) -> bool:
        return post("/score", ("multipart/form-data; boundary=x", rng.bytes(1000))) == 400

    def leave(number: int) -> bool:
        content_type, content = bodies.as_npy(images)
        with socket.create_connection(("127.0.0.1", served.port), timeout=CALL_SECONDS) as connection:
            head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}"
            connection.sendall(f"{head}\r\n\r\n".encode() + content[: rng.integers(len(content) + 1)])
        return True

    senders = (array, form, edit, score, stream, malformed, unreadable, leave)
    return {sender.__name__: sender for sender in senders}


def test_soak(tmp_path, images, report):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = {"TMPDIR": str(scratch), "BENTOML_HOME": str(scratch / "bentoml")}
    with (
        serve(tmp_path / "log", settings) as served,
        calls.stub(served.grpc_target) as stub,
        httpx.Client(base_url=served.url, timeout=CALL_SECONDS) as client,
    ):
        processes = [psutil.Process(served.process.pid), *served.workers]
        samples: list[Sample] = []
        end = time.monotonic() + SECONDS
        with Load(kinds_of(served, images, stub, client)) as load:
            while time.monotonic() < end:
                samples.append(sample(processes, scratch))
                time.sleep(SAMPLE_SECONDS)
        assert [process.is_running() for process in processes] == [True] * len(processes)
        assert (served.in_flight("rows"), served.in_flight("bytes")) == (0, 0)
    assert load.failed == []
    assert all(load.sent.values()), load.sent
    second, last = samples[len(samples) // 4 : len(samples) // 2], samples[-len(samples) // 4 :]
    levels = {
        field.name: tuple(int(median(getattr(each, field.name) for each in part)) for part in (second, last))
        for field in fields(Sample)
    }
    print(levels)
    for name, (before, after) in levels.items():
        assert after - before <= MOST_GROWTH[name], levels
    bad = load.sent["malformed"] + load.sent["unreadable"]
    memory, descriptors, files, file_bytes = levels.values()
    report(
        fault=f"{SECONDS / 60:.1f} minutes of everything at once",
        held=f"{sum(load.sent.values()) / SECONDS:.0f} requests/s; memory {memory[0] / MIB:.0f} -> "
        f"{memory[1] / MIB:.0f} MiB, descriptors {descriptors[0]} -> {descriptors[1]}, temporary files {files[0]} -> "
        f"{files[1]} ({file_bytes[0] // 1024} -> {file_bytes[1] // 1024} KiB), medians of the second and last quarter",
        answered=sum(load.sent.values()) - bad - load.sent["leave"],
        refused=bad,
        bad_inputs=bad,
    )
