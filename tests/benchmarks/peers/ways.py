"""The ways to send images to a server, by name: its protocol, path and the form of its body."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from workloads import Send, Workload

sys.path.append(str(Path(__file__).parents[2] / "support"))
import bodies
import calls

from service.protos.misfit.v1 import misfit_pb2 as pb

# Makes a request of images, uint8 (n, 64, 64, 3), for a server on a port (of HTTP, of gRPC): what connects a client.
Connect = Callable[[], AbstractContextManager[Send]]
Way = Callable[[Workload, NDArray[np.uint8], int, int], Connect]
TIMEOUT_SECONDS = 120


@contextmanager
def http_client(port: int, path: str, headers: Mapping[str, str], content: bytes) -> Iterator[Send]:
    """Yield what posts `content` over one connection, and raises RuntimeError unless the answer has status 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def send() -> bytes:
        connection.request("POST", path, content, dict(headers))
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {answer[:500]!r}")
        return answer

    try:
        yield send
    finally:
        connection.close()


@contextmanager
def grpc_client(port: int, method: str, message: bytes) -> Iterator[Send]:
    """Yield what calls `method` with a serialised message, over one connection."""
    options = (*calls.UNLIMITED, ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.unary_unary(method)
        yield lambda: call(message, timeout=TIMEOUT_SECONDS)


def misfit_http(path: str, workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int) -> Connect:
    if workload.form == "png":
        content_type, content = bodies.as_form(bodies.form_of(bodies.image_files(images)))
    else:
        content_type, content = bodies.as_npy(images)
    return partial(http_client, port, path, {"Content-Type": content_type}, content)


def misfit_grpc(method: str, workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int) -> Connect:
    files = list(bodies.image_files(images).values())
    message = getattr(pb, f"{method}Request")(
        images=calls.files(files) if workload.form == "png" else calls.tensor(images)
    )
    return partial(grpc_client, grpc_port, f"/misfit.v1.MisfitService/{method}", message.SerializeToString())


MISFIT: dict[str, Way] = {
    "/encode": partial(misfit_http, "/encode"),
    "gRPC Encode": partial(misfit_grpc, "Encode"),
    "/score?foreign=off": partial(misfit_http, "/score?foreign=off"),
    "/score": partial(misfit_http, "/score"),
}
