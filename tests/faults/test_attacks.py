"""Attacks by number and by time, on a service with 1,024 descriptors: probes and other clients are answered."""

from __future__ import annotations

import hashlib
import select
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import bodies
import calls
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import Served, serve

TOKEN = "open sesame"
DESCRIPTORS = 1024
ATTACKERS = 1200
BODY_SECONDS = 5
ATTACK_SECONDS = 10
PROBE_SECONDS = 30  # what they take is reported; here others share the processor
WAIT_SECONDS = 120
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "tokens").write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
    settings = {"MISFIT_TOKENS_FILE": str(directory / "tokens"), "MISFIT_BODY_SECONDS": str(BODY_SECONDS)}
    with serve(directory / "log", settings) as running:
        running.worker("Misfit").rlimit(psutil.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        yield running


def head(start: str, *headers: str) -> bytes:
    return "\r\n".join([f"{start} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


AUTHORIZED = f"Authorization: Bearer {TOKEN}"
CHUNK = b"1\r\nx\r\n"
# What each attacker sends first, and then every so often.
ATTACKS = {
    "say nothing": (b"", b""),
    "trickle a head": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ", b"x"),
    "trickle a body to /livez": (head("GET /livez", "Content-Length: 1000000"), b"x"),
    "trickle chunks to /livez": (head("GET /livez", "Transfer-Encoding: chunked"), CHUNK),
    "trickle a body without a token": (head("POST /score", "Content-Length: 1000000"), b"x"),
    "trickle a body to no path": (head("PUT /nowhere", "Content-Length: 1000000"), b"x"),
    "trickle a body to /score": (head("POST /score", AUTHORIZED, "Content-Length: 1000000"), b"x"),
    "trickle chunks to /score": (head("POST /score", AUTHORIZED, "Transfer-Encoding: chunked"), CHUNK),
    "wait for 100 Continue": (head("POST /score", AUTHORIZED, "Content-Length: 9", "Expect: 100-continue"), b""),
    "send what is no HTTP": (b"\x16\x03\x01\x02\x00", b"\0"),
    "pipeline 500 requests": (head("GET /livez") * 500, b""),
}


class Attackers:
    """Connections that send the same; each that is ended is made anew, as many times as it takes."""

    def __init__(self, served: Served, first: bytes, again: bytes, number: int = ATTACKERS) -> None:
        self._served, self._first, self._again = served, first, again
        self._connections: list[socket.socket] = []
        self._number, self.made, self.lives = number, 0, []
        self._born: dict[socket.socket, float] = {}

    def go_on(self) -> None:
        """Fill up to the number, and have each send a little."""
        while len(self._connections) < self._number:
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", self._served.port))
            self._connections.append(connection)
            self._born[connection] = time.monotonic()
            self.made += 1
        poll = select.poll()
        for connection in self._connections:
            poll.register(connection, select.POLLIN | select.POLLOUT | select.POLLERR | select.POLLHUP)
        ready, ended = dict(poll.poll(0)), []
        for connection in self._connections:
            events = ready.get(connection.fileno(), 0)
            try:
                if events & select.POLLIN and not connection.recv(65536):
                    raise ConnectionError
                if events & select.POLLOUT:
                    is_new = self._born[connection] > 0
                    connection.send(self._first if is_new else self._again)
                    self._born[connection] = -abs(self._born[connection])
            except BlockingIOError:
                pass
            except OSError:
                ended.append(connection)
        for connection in ended:
            self.lives.append(time.monotonic() - abs(self._born.pop(connection)))
            self._connections.remove(connection)
            connection.close()

    def stop(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.mark.parametrize("name", [name for name in ATTACKS if not name.startswith("pipeline")])
def test_many_connections_keep_nobody_out(guarded, images, report, name):
    """More of them than there are descriptors, all the time: probes are answered, and so is /score."""
    body, probes = bodies.as_npy(images), []
    headers = {"Content-Type": body[0], "Authorization": f"Bearer {TOKEN}"}
    attackers, answered = Attackers(guarded, *ATTACKS[name]), 0
    end = time.monotonic() + ATTACK_SECONDS
    try:
        while time.monotonic() < end:
            attackers.go_on()
            began = time.monotonic()
            assert guarded.status("/livez", PROBE_SECONDS) == 200, f"after {len(probes)} probes"
            probes.append(time.monotonic() - began)
            attackers.go_on()
            answer = httpx.post(f"{guarded.url}/score", content=body[1], headers=headers, timeout=WAIT_SECONDS)
            assert answer.status_code == 200
            answered += 1
            if len(probes) % 10 == 1:
                with calls.stub(guarded.grpc_target) as stub:
                    request = calls.pb.ScoreRequest(images=calls.tensor(images))
                    let_in = (("authorization", f"Bearer {TOKEN}"),)
                    assert stub.Score(request, metadata=let_in, timeout=WAIT_SECONDS).items
                    answered += 1
    finally:
        attackers.stop()
    report(
        fault=f"{ATTACKERS} at a time {name}, {ATTACK_SECONDS} s",
        held=f"{DESCRIPTORS} descriptors; /livez after {max(probes):.2f} s at most; {attackers.made} connections made",
        answered=answered + len(probes),
        refused=len(attackers.lives),
    )


def lifetime(served: Served, first: bytes, again: bytes) -> float:
    """Return for how many seconds one connection lives whose client sends `again` twice a second, and never leaves."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=0.5) as connection:
        began = time.monotonic()
        connection.sendall(first)
        while time.monotonic() < began + WAIT_SECONDS:
            try:
                connection.sendall(again)
                if not connection.recv(65536):
                    break
                time.sleep(0.5)
            except TimeoutError:
                continue
            except OSError:
                break
        return time.monotonic() - began


@pytest.mark.parametrize("name", ATTACKS)
def test_no_connection_lives_for_ever(guarded, report, name):
    first, again = ATTACKS[name]
    lived = lifetime(guarded, first, again)
    assert lived < WAIT_SECONDS
    report(fault=f"one that would {name} for ever", held=f"ended after {lived:.1f} s", refused=1)


@pytest.mark.parametrize("path", ["/metrics", "/livez"])
def test_answers_that_nobody_reads_are_given_up(guarded, report, path):
    worker = guarded.worker("Misfit")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", guarded.port))
        connection.settimeout(2)
        with suppress(OSError):
            while True:
                connection.sendall(head(f"GET {path}") * 100)
        port, began = connection.getsockname()[1], time.monotonic()

        def is_open() -> bool:
            return any(each.raddr and each.raddr.port == port for each in worker.net_connections("tcp"))

        assert is_open()
        while is_open():
            assert time.monotonic() < began + WAIT_SECONDS
            time.sleep(0.5)
        lived = time.monotonic() - began
    assert guarded.status("/livez") == 200
    report(fault=f"answers of {path} that are never read", held=f"ended after {lived:.0f} s", refused=1)


def test_silent_grpc_connections_end_and_keep_no_http_out(guarded, report):
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", guarded.grpc_port))) for _ in range(ATTACKERS)
        ]
        for connection in silent[::2]:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        began = time.monotonic()
        for connection in silent:
            connection.settimeout(WAIT_SECONDS)
            with suppress(ConnectionError):
                while connection.recv(65536):
                    assert guarded.status("/livez", PROBE_SECONDS) == 200
            if connection is silent[1]:
                assert guarded.status("/livez", PROBE_SECONDS) == 200
        lived = time.monotonic() - began
    with calls.grpc.insecure_channel(guarded.grpc_target) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    report(fault=f"{ATTACKERS} silent gRPC connections", held=f"all ended after {lived:.0f} s", refused=ATTACKERS)


@pytest.fixture
def small_disk(tmp_path):
    """The directory that BentoML keeps its counts in, as a disk of 4 MiB of its own."""
    home = Path(f"{tmp_path / 'log'}.home")
    home.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", home], capture_output=True).returncode != 0:
        pytest.skip("only root may mount a disk")
    yield home
    subprocess.run(["umount", "-l", home], check=True)


def fill(disk: Path) -> None:
    with (disk / "fill").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_costs_counts_and_nothing_else(tmp_path, small_disk, images, report):
    """Before, the first new count ended the process that made it (SIGBUS)."""
    body = bodies.as_npy(images)
    with serve(tmp_path / "log") as served:
        workers = served.workers
        fill(small_disk)
        answers = [
            httpx.post(f"{served.url}{path}", content=body[1], headers={"Content-Type": body[0]}, timeout=WAIT_SECONDS)
            for path in ("/score", "/explain", "/encode", "/edit", "/describe")
            for _ in range(5)
        ]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        metrics = httpx.get(f"{served.url}/metrics", timeout=WAIT_SECONDS)
        assert metrics.status_code == 200
        assert "misfit_rows_in_flight" in metrics.text
        assert (served.status("/livez"), served.status("/readyz")) == (200, 200)
        assert all(worker.is_running() for worker in workers)
    assert "Traceback" not in served.log.read_text()
    report(fault="the disk of the counts is full", held="all answered; some counts missing", answered=len(answers))


def test_counts_that_cannot_be_read_are_503(tmp_path, images, report):
    body = bodies.as_npy(images)
    with serve(tmp_path / "log") as served:
        (directory,) = Path(f"{tmp_path / 'log'}.home").rglob("misfit_metrics/*")
        directory.rename(directory.with_name("elsewhere"))
        answer = httpx.get(f"{served.url}/metrics", timeout=WAIT_SECONDS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "metrics_unavailable")
        scored = httpx.post(
            f"{served.url}/score", content=body[1], headers={"Content-Type": body[0]}, timeout=WAIT_SECONDS
        )
        assert scored.status_code == 200
        assert served.status("/livez") == 200
        directory.with_name("elsewhere").rename(directory)
        assert served.status("/metrics") == 200
    assert "Traceback" not in served.log.read_text()
    report(fault="the counts cannot be read", held="/metrics 503, all else answered", answered=2, refused=1)
