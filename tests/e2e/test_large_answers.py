"""Answers of many MiB: sent while they are made, counted until they are sent, and never more at a time than fit."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing, contextmanager

import bodies
import calls
import grpc
import httpx
import numpy as np
import psutil
import pytest
from serving import serve

from service.protos.misfit.v1 import misfit_pb2 as pb

MIB = 1024 * 1024
IMAGES = 2000
# Of one request there is room, and of the answer of another.
LIMITS = {
    "MISFIT_MAX_IMAGES": str(IMAGES),
    "MISFIT_MAX_BODY_BYTES": str(25 * MIB),
    "MISFIT_MAX_BYTES_IN_FLIGHT": str(180 * MIB),
    "MISFIT_TIMEOUT_SECONDS": "30",
}
EVERYTHING = "/explain?foreign=off&interactions=true&threshold=0&top=100"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("narrow") / "log", LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def body():
    return bodies.npy(np.random.default_rng(0).integers(0, 256, (IMAGES, 64, 64, 3), np.uint8))


def post(served, path, body):
    return httpx.post(served.url + path, content=body, headers={"Content-Type": "application/x-npy"}, timeout=120)


@contextmanager
def unread(served, path, body):
    """A connection whose answer has begun, and of which no more is read than the first kilobyte."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", served.port))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        yield connection, connection.recv(1024)


def wait_until(served, bytes_in_flight, seconds=20):
    until = time.monotonic() + seconds
    while not bytes_in_flight(served.in_flight("bytes")):
        assert time.monotonic() < until, served.in_flight("bytes")
        time.sleep(0.1)


def test_a_large_answer_comes_in_pieces_and_is_whole(narrow, body):
    answer = post(narrow, EVERYTHING, body)
    assert answer.status_code == 200
    assert len(answer.content) > 5 * MIB
    assert answer.headers["transfer-encoding"] == "chunked"
    items = json.loads(answer.content)["items"]
    assert [item["index"] for item in items] == list(range(IMAGES))
    wait_until(narrow, lambda taken: taken == 0)


def test_what_does_not_fit_beside_answers_that_are_being_sent_is_refused(narrow, body):
    message = pb.ExplainRequest(
        images=calls.tensor(np.zeros((IMAGES, 64, 64, 3), np.uint8)),
        options=pb.ExplainOptions(foreign=pb.FOREIGN_OFF, interactions=True, threshold=0, top=100),
    )
    with unread(narrow, EVERYTHING, body) as (_, first), unread(narrow, EVERYTHING, body) as (_, second):
        assert first.startswith(b"HTTP/1.1 200")
        assert second.startswith((b"HTTP/1.1 200", b"HTTP/1.1 429"))
        assert 20 * MIB < narrow.in_flight("bytes") <= 180 * MIB
        assert narrow.in_flight("rows") == 0  # nothing is worked on any more
        with calls.stub(narrow.grpc_target) as stub, pytest.raises(grpc.RpcError) as refused:
            stub.Explain(message, timeout=60)
        status, detail = calls.error_of(refused.value)
        assert (status, detail.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
        assert dict(refused.value.trailing_metadata())["retry-after"] == "1"
    wait_until(narrow, lambda taken: taken == 0)
    with calls.stub(narrow.grpc_target) as stub:
        assert len(stub.Explain(message, timeout=60).items) == IMAGES
    wait_until(narrow, lambda taken: taken == 0)


def test_an_answer_that_nobody_reads_ends_at_the_time_limit(narrow, body):
    with unread(narrow, EVERYTHING, body) as (connection, begun):
        assert begun.startswith(b"HTTP/1.1 200")
        wait_until(narrow, lambda taken: taken == 0, seconds=60)
        received = begun
        while piece := connection.recv(65536):
            received += piece
        assert not received.endswith(b"0\r\n\r\n")  # its last chunk never came


def test_the_memory_of_one_answer_is_a_few_times_its_pieces(narrow, body):
    processes = psutil.Process(narrow.process.pid).children(recursive=True)
    before = sum(process.memory_info().rss for process in processes)
    for _ in range(3):
        assert post(narrow, EVERYTHING, body).status_code == 200
    assert sum(process.memory_info().rss for process in processes) - before < 60 * MIB
