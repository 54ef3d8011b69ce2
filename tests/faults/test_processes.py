"""Processes that die or are told to stop, under load: what clients see, and what the supervisor makes of it."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor

import bodies
import httpx
import numpy as np
import psutil
import pytest
from serving import OWN_PROCESS, serve
from steady import clients
from supervisor import CONTAINER, supervised

WAIT_SECONDS = 120
LARGE = 1000


@pytest.fixture
def supervisor(tmp_path, request):
    """The service under a supervisor, with the settings that the test is parametrised with, if it is."""
    with supervised(tmp_path, getattr(request, "param", None)) as supervisor:
        yield supervisor


@pytest.fixture
def large(images) -> bodies.Body:
    """A request that is at work for a while."""
    return bodies.as_npy(np.resize(images, (LARGE, *images.shape[1:])))


@pytest.fixture
def pool():
    with ThreadPoolExecutor(32) as pool:
        yield pool


def post(url: str, body: bodies.Body) -> httpx.Response:
    """One request on a connection of its own, sent once."""
    return httpx.post(f"{url}/score", content=body[1], headers={"Content-Type": body[0]}, timeout=WAIT_SECONDS)


def wait_for_rows(served, rows: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while served.in_flight() < rows:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def urls_of(served) -> list[str]:
    return [served.url, served.url, f"grpc://{served.grpc_target}", f"grpc://{served.grpc_target}"]


def kill_mid_request(served, process: str, large: bodies.Body, pool) -> tuple[Future[httpx.Response], float]:
    """A request that was at work when that process was killed, and when that was."""
    under_way = pool.submit(post, served.url, large)
    wait_for_rows(served, LARGE)
    served.worker(process).send_signal(signal.SIGKILL)
    return under_way, time.monotonic()


@pytest.mark.parametrize("supervisor", [OWN_PROCESS], indirect=True)
def test_inference_killed_mid_request(supervisor, images, large, pool, report):
    served = supervisor.served
    with clients(urls_of(served), images) as steady:
        under_way, killed = kill_mid_request(served, "Inference", large, pool)
        answer = under_way.result()  # in clear words, and long before the request's time is over
        told = time.monotonic() - killed
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "inference_unavailable")
        supervisor.wait_for_start(2)
        back = time.monotonic() - killed
        steady.wait_for_more()
    assert 503 in supervisor.failed_probes  # it says so itself, as far as it answers in time
    report(
        fault="Inference killed (SIGKILL) mid-request",
        held=f"503 after {told:.1f} s, /livez failed, restarted and ready after {back:.0f} s; 4 clients went on",
        answered=sum(steady.answered),
        refused=1,
        lost=len(steady.failures),
    )


def test_api_worker_killed(supervisor, images, large, pool, report):
    served = supervisor.served
    with clients(urls_of(served), images) as steady:
        under_way, killed = kill_mid_request(served, "Misfit", large, pool)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # at once: nobody waits for an answer
            under_way.result()
        told = time.monotonic() - killed
        supervisor.wait_for_start(2)
        back = time.monotonic() - killed
        steady.wait_for_more()
    assert set(supervisor.failed_probes) == {0}
    report(
        fault="API worker, and the networks in it, killed (SIGKILL) mid-request",
        held=f"connection closed after {told:.1f} s, /livez failed, restarted and ready after {back:.0f} s; "
        "4 clients went on",
        answered=sum(steady.answered),
        refused=1,
        lost=len(steady.failures),
    )


def test_whole_service_stopped_and_started_under_load(supervisor, images, report):
    """As in a rolling update of one pod: clients that call again lose nothing."""
    served = supervisor.served
    with clients(urls_of(served), images) as steady:
        for start in (2, 3):
            supervisor.served.process.send_signal(signal.SIGTERM)
            supervisor.wait_for_start(start)
            steady.wait_for_more()
    report(
        fault="stopped (SIGTERM) and started again, twice, under load",
        held="4 clients went on",
        answered=sum(steady.answered),
        lost=len(steady.failures),
    )


def test_sigterm_under_load_loses_no_accepted_request(tmp_path, images, pool, report):
    """Nobody calls twice here: what was taken before the signal is answered, and so is what was still being sent."""
    small = bodies.as_npy(images)
    with serve(tmp_path / "log", CONTAINER) as served:
        expected = post(served.url, small).content
        under_way: list[Future[httpx.Response]] = [pool.submit(post, served.url, small) for _ in range(24)]
        wait_for_rows(served, 24 * len(images) // 2)
        sender = HalfSent(served.port, small)
        while served.in_flight("bytes") < 24 * len(images) // 2:
            time.sleep(0.02)
        in_flight = served.in_flight()
        served.process.send_signal(signal.SIGTERM)
        late = sender.finish()
        answers = [future.result() for future in under_way]
        assert served.process.wait(WAIT_SECONDS) == 0
    wrong = [answer.status_code for answer in answers if answer.content != expected]
    wrong += [] if late.endswith(expected) else [late[:100]]
    assert wrong == []
    report(
        fault="SIGTERM under load",
        held=f"{in_flight:.0f} images at work, one body half sent: all answered, exit code 0",
        answered=len(answers) + 1,
        lost=len(wrong),
    )


@pytest.mark.parametrize("settings", [{}, OWN_PROCESS], ids=["api", "own"])
def test_supervisor_killed_outside_a_container(tmp_path, images, large, pool, report, settings):
    """Nobody is left to stop the workers: they end on their own, once what they have taken is answered."""
    with serve(tmp_path / "log", settings) as served:
        workers = served.workers
        expected = post(served.url, large).json()
        under_way = pool.submit(post, served.url, large)
        wait_for_rows(served, LARGE)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        assert under_way.result().json() == expected
        answered = time.monotonic()
        _, alive = psutil.wait_procs(workers, timeout=WAIT_SECONDS)
        assert alive == []
        seconds = time.monotonic() - answered
        for port in (served.port, served.grpc_port):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
    assert "Traceback" not in served.log.read_text()
    report(
        fault="supervisor killed (SIGKILL), no container",
        held=f"what was taken is answered; {len(workers)} worker(s) and ports gone {seconds:.1f} s later",
        answered=2,
    )


class HalfSent:
    """A request of which half is sent, and the rest by `finish`."""

    def __init__(self, port: int, body: bodies.Body) -> None:
        self._content = body[1]
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {body[0]}\r\nContent-Length: {len(body[1])}\r\n"
        self._connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + self._content[: len(self._content) // 2])

    def finish(self) -> bytes:
        """The answer, once the rest has been sent a second later."""
        time.sleep(1)
        with self._connection:
            self._connection.sendall(self._content[len(self._content) // 2 :])
            return b"".join(iter(lambda: self._connection.recv(65536), b""))
