"""Clients that go away, dawdle, or never say anything: nobody else notices, and nothing of theirs is kept."""

from __future__ import annotations

import json
import random
import socket
import time
from contextlib import ExitStack
from http.client import HTTPResponse

import bodies
import calls
import grpc
import httpx
import pytest
from serving import Served, serve

from service.protos.misfit.v1 import misfit_pb2 as pb

BODY_SECONDS = 5
LEAVERS, DAWDLERS, SILENT, STREAMS = 200, 60, 200, 40
WAIT_SECONDS = 120


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("clients") / "log", {"MISFIT_BODY_SECONDS": str(BODY_SECONDS)}) as served:
        yield served


@pytest.fixture(scope="module")
def score(served, images):
    """The seconds that a request of 40 images takes, which is answered as ever."""
    content_type, content = bodies.as_npy(images)
    with httpx.Client(base_url=served.url, timeout=WAIT_SECONDS) as client:
        expected = client.post("/score", content=content, headers={"Content-Type": content_type}).json()

        def score() -> float:
            began = time.perf_counter()
            answer = client.post("/score", content=content, headers={"Content-Type": content_type})
            assert answer.json() == expected
            return time.perf_counter() - began

        yield score


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_SECONDS)


def whole_request(body: bodies.Body) -> bytes:
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {body[0]}\r\nContent-Length: {len(body[1])}\r\n\r\n"
    return head.encode() + body[1]


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """The status and the error code that a request ends in."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())["error"]["code"]


def wait_until_nothing_is_in_flight(served: Served) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while served.in_flight("rows") or served.in_flight("bytes"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_clients_that_disconnect_anywhere(served, images, score, report):
    worker = served.worker("Misfit")
    request, chance = whole_request(bodies.as_npy(images)), random.Random(1)
    score()
    descriptors, answered = worker.num_fds(), 0
    for number in range(LEAVERS):
        with connect(served) as connection:
            cut = len(request) if number % 3 == 0 else chance.randrange(200 if number % 3 == 1 else len(request))
            connection.sendall(request[:cut])
            if number % 2:  # the hard way: RST rather than FIN
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if number % 40 == 0:
            score()
            answered += 1
    wait_until_nothing_is_in_flight(served)
    score()
    assert worker.num_fds() <= descriptors + 5
    report(fault=f"{LEAVERS} clients that disconnect", held="nothing of theirs stays in flight", answered=answered + 1)


def test_grpc_clients_that_cancel(served, images, score, report):
    with calls.stub(served.grpc_target) as stub:
        chunk = pb.ScoreStreamRequest(images=calls.tensor(images))
        unary = [stub.Score.future(pb.ScoreRequest(images=calls.tensor(images))) for _ in range(STREAMS)]
        streams = [stub.ScoreStream(iter([chunk] * 5)) for _ in range(STREAMS)]
        time.sleep(0.2)
        for call in (*unary, *streams):
            call.cancel()
        wait_until_nothing_is_in_flight(served)
        assert len(stub.Score(pb.ScoreRequest(images=calls.tensor(images))).items) == len(images)
    score()
    report(fault=f"{2 * STREAMS} gRPC calls cancelled", held="nothing of theirs stays in flight", answered=2)


def test_slow_senders(served, images, score, report):
    """A byte now and then: 408 after MISFIT_BODY_SECONDS, and meanwhile everybody else is served as fast."""
    request = whole_request(bodies.as_npy(images))
    alone = min(score() for _ in range(5))
    with ExitStack() as stack:
        dawdlers = [stack.enter_context(connect(served)) for _ in range(DAWDLERS)]
        for dawdler in dawdlers:
            dawdler.sendall(request[:5000])
        began, sent, meanwhile = time.monotonic(), 5000, []
        while time.monotonic() < began + BODY_SECONDS / 2:
            for dawdler in dawdlers:
                dawdler.sendall(request[sent : sent + 1])
            sent += 1
            meanwhile.append(score())
        assert served.in_flight("bytes") >= DAWDLERS * 5000 * 0.9
        answers = [answer_of(dawdler) for dawdler in dawdlers]
        seconds = time.monotonic() - began
    assert answers == [(408, "too_slow")] * DAWDLERS
    assert min(meanwhile) < 2 * alone + 0.1
    wait_until_nothing_is_in_flight(served)
    report(
        fault=f"{DAWDLERS} slow senders",
        held=f"408 after {seconds:.1f} s; 40 images took {1000 * min(meanwhile):.0f} ms beside them, "
        f"{1000 * alone:.0f} ms alone",
        answered=len(meanwhile),
        refused=DAWDLERS,
    )


def test_silent_connections(served, score, report):
    """Connections over which nothing, or half a header, comes cost a descriptor each, and no more."""
    worker = served.worker("Misfit")
    alone = min(score() for _ in range(5))
    descriptors = worker.num_fds()
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(served)) for _ in range(SILENT)]
        for connection in silent[::2]:
            connection.sendall(b"POST /score HTTP/1.1\r\nHost: ")
        beside = min(score() for _ in range(5))
        assert worker.num_fds() <= descriptors + SILENT + 5
    score()
    deadline = time.monotonic() + WAIT_SECONDS
    while worker.num_fds() > descriptors + 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert beside < 2 * alone + 0.1
    report(
        fault=f"{SILENT} silent connections",
        held=f"40 images took {1000 * beside:.0f} ms beside them, {1000 * alone:.0f} ms alone",
        answered=11,
    )


def test_a_stream_that_stalls_ends_at_its_time(tmp_path, images, report):
    """A gRPC stream whose client sends no more holds what it has taken until the request's time is over, not longer."""
    with (
        serve(tmp_path / "log", {"MISFIT_TIMEOUT_SECONDS": "3"}) as served,
        calls.stub(served.grpc_target) as stub,
    ):

        def stalling():
            yield pb.ScoreStreamRequest(images=calls.tensor(images))
            time.sleep(20)

        call = stub.ScoreStream(stalling())
        with pytest.raises(grpc.RpcError) as failed:
            list(call)
        assert calls.error_of(failed.value)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until_nothing_is_in_flight(served)
    report(fault="a gRPC stream that stalls", held="DEADLINE_EXCEEDED at its time", refused=1)
