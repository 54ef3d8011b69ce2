"""The gRPC server by itself, its port, and the order in which processes stop."""

import asyncio
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import tracemalloc
from contextlib import asynccontextmanager

import grpc
import numpy as np
import psutil
import pytest
from fakes import FakeNetworks
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from serving import ROOT, free_ports

from service.errors import Overloaded
from service.hosting import shutdown
from service.pipeline.pipeline import Pipeline
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.transports.admission import Admission
from service.transports.dispatch import Dispatcher
from service.transports.grpc.health import HEALTH, MOST_REQUESTS
from service.transports.grpc.port import claim_port
from service.transports.grpc.server import Server
from service.transports.grpc.servicer import SERVICE

IMAGE_BYTES = 64 * 64 * 3


class Networks(FakeNetworks):
    """Latents of noise; `gate` holds every call back until it is set."""

    def __init__(self, latent_dim):
        self.latent_dim, self.gate = latent_dim, asyncio.Event()
        self.gate.set()

    async def encode(self, images):
        await self.gate.wait()
        noise = np.random.default_rng(len(images)).normal(size=(len(images), 2, self.latent_dim))
        return noise.astype(np.float32)

    async def decode(self, latents):
        return np.zeros((len(latents), 64, 64, 3), dtype=np.uint8)


@asynccontextmanager
async def serving(served_bundle):
    """A server with networks of our own, its admission, and a channel to it."""
    (port,) = free_ports(1)
    settings = Settings(grpc_host="127.0.0.1", grpc_port=port, max_stream_images=20_000, timeout_seconds=60)
    networks = Networks(served_bundle.manifest.latent_dim)
    admission = Admission(settings.max_rows_in_flight, settings.max_bytes_in_flight)
    pipeline = Pipeline(served_bundle, networks, settings)

    async def ready():
        return True

    async def provider():
        return "CPUExecutionProvider"

    dispatcher = Dispatcher(pipeline, admission, Metrics(served_bundle, CollectorRegistry()), provider)
    server = Server({"": dispatcher}, ready, settings)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel, networks, admission, server
    await server.stop()


@pytest.fixture
async def running(served_bundle):
    async with serving(served_bundle) as all_of_it:
        yield all_of_it


def chunk(count):
    images = np.zeros((count, 64, 64, 3), dtype=np.uint8)
    return pb.ScoreStreamRequest(
        images=pb.Images(tensor=pb.ImageTensor(shape=images.shape, data=images.tobytes())),
    ).SerializeToString()


async def never():
    """Messages of which none comes."""
    await asyncio.Event().wait()
    yield b""


async def test_a_stream_keeps_no_pixels(running):
    channel, _, admission, _ = running
    content = chunk(300)  # below a client's usual limit
    most = peak = 0

    async def contents():
        nonlocal most, peak
        for _ in range(40):
            most = max(most, admission.in_flight["images"])
            yield content
        peak = tracemalloc.get_traced_memory()[1]  # before all are scored at once

    tracemalloc.start()
    items = [
        item.index
        async for piece in channel.stream_stream("/misfit.v1.MisfitService/ScoreStream")(contents())
        for item in pb.ScoreStreamResponse.FromString(piece).items
    ]
    tracemalloc.stop()
    assert items == list(range(12_000))
    assert most == 300
    assert admission.in_flight == {"images": 0, "bytes": 0}
    assert 0 < peak < 12_000 * IMAGE_BYTES / 3


async def test_what_a_cancelled_call_took_is_given_back(running):
    channel, networks, admission, _ = running
    networks.gate.clear()
    call = channel.stream_stream("/misfit.v1.MisfitService/ScoreStream")(iter([chunk(300)]))
    while admission.in_flight["images"] != 300:
        await asyncio.sleep(0.01)
    call.cancel()
    while admission.in_flight["images"]:
        await asyncio.sleep(0.01)
    assert admission.in_flight == {"images": 0, "bytes": 0}


@pytest.mark.parametrize("method", ["Score", "ScoreStream", "Decode"])
async def test_without_room_no_message_is_waited_for(running, method):
    channel, _, admission, _ = running
    with admission.ticket() as ticket:
        ticket.take_images(Settings().max_rows_in_flight)
        with pytest.raises(Overloaded):
            ticket.take_images(1)
        call = channel.stream_unary(f"/misfit.v1.MisfitService/{method}")(never())
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await asyncio.wait_for(call, 10)
        assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(failed.value.trailing_metadata())["retry-after"] == "1"
        describe = channel.unary_unary("/misfit.v1.MisfitService/Describe")
        assert pb.DescribeResponse.FromString(await describe(b"")).latent_dim  # takes none


async def test_a_call_is_ended_at_the_client_s_deadline(running):
    channel, networks, admission, _ = running
    networks.gate.clear()
    request = pb.ScoreRequest.FromString(chunk(3)).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await channel.unary_unary("/misfit.v1.MisfitService/Score")(request, timeout=0.2)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    while admission.in_flight["images"]:
        await asyncio.sleep(0.01)


async def test_an_idle_connection_is_ended_and_made_anew(monkeypatch, served_bundle):
    monkeypatch.setattr("service.transports.grpc.server.IDLE_SECONDS", 0.3)
    async with asyncio.timeout(30), serving(served_bundle) as (channel, _, _, _):
        describe = channel.unary_unary("/misfit.v1.MisfitService/Describe")
        await describe(b"")
        while (state := channel.get_state()) != grpc.ChannelConnectivity.IDLE:
            await channel.wait_for_state_change(state)
        await describe(b"")


async def test_a_message_that_does_not_come_is_given_up(monkeypatch, served_bundle):
    """Before anything of ours runs, gRPC would wait for it for ever."""
    monkeypatch.setenv("MISFIT_BODY_SECONDS", "0.3")
    async with asyncio.timeout(30), serving(served_bundle) as (channel, _, admission, _):
        for method in ("Score", "Decode", "Describe"):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await channel.stream_unary(f"/misfit.v1.MisfitService/{method}")(never())
            assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert "has not come in 0.3 s" in failed.value.details()
        assert admission.in_flight == {"images": 0, "bytes": 0}


async def test_a_call_without_a_message_is_refused(running):
    channel, *_ = running
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await channel.stream_unary("/misfit.v1.MisfitService/Score")(iter(()))
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "has no message" in failed.value.details()


async def test_calls_of_one_connection_have_a_limit(monkeypatch, served_bundle):
    """What is more is kept back by the client, or refused."""
    limit = 10
    monkeypatch.setattr("service.transports.grpc.server.MOST_CALLS", limit)
    async with asyncio.timeout(60), serving(served_bundle) as (channel, networks, admission, _):
        networks.gate.clear()
        request = pb.ScoreRequest.FromString(chunk(3)).SerializeToString()
        score = channel.unary_unary("/misfit.v1.MisfitService/Score")
        first = asyncio.ensure_future(score(request))
        while not admission.in_flight["images"]:
            await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(score(request)) for _ in range(3 * limit)]
        await asyncio.wait(others, timeout=1)
        assert 0 < admission.in_flight["images"] <= 3 * limit
        networks.gate.set()
        assert len(pb.ScoreResponse.FromString(await first).items) == 3
        ended = await asyncio.gather(*others, return_exceptions=True)
        refused = [each.code() for each in ended if isinstance(each, grpc.aio.AioRpcError)]
        assert set(refused) <= {grpc.StatusCode.UNAVAILABLE}
        assert len(refused) < len(ended)


SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.ServingStatus.Value(name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)


async def test_watching_health_ends_with_the_server(running):
    channel, *_, server = running
    health = health_pb2_grpc.HealthStub(channel)
    streams, first = {}, {}
    for name in ("", SERVICE.full_name, "nobody"):  # one by one: of many at a time some are answered as the server
        streams[name] = health.Watch(health_pb2.HealthCheckRequest(service=name))
        first[name] = (await streams[name].read()).status
    while first[""] == NOT_SERVING:  # it has only just started
        first[""] = first[SERVICE.full_name] = (await streams[""].read()).status
    assert (first[""], first["nobody"]) == (SERVING, UNKNOWN)
    async with asyncio.timeout(20):  # not the minute that calls have
        stopping = asyncio.create_task(server.stop())
        last = {name: [answer.status for answer in await rest_of(stream)][-1:] for name, stream in streams.items()}
        await stopping
    assert last == {"": [NOT_SERVING], SERVICE.full_name: [NOT_SERVING], "nobody": []}


async def rest_of(stream):
    answers = []
    while (answer := await stream.read()) is not grpc.aio.EOF:
        answers.append(answer)
    return answers


async def test_health_does_not_wait_for_what_strangers_send(running):
    channel, *_ = running
    slow = [channel.stream_stream(f"/{HEALTH}/Check")(never()) for _ in range(3 * MOST_REQUESTS)]
    async with asyncio.timeout(20):
        answers = [health_pb2.HealthCheckResponse.FromString(await call.read()).status for call in slow]
    assert set(answers) <= {SERVING, NOT_SERVING}
    check = channel.unary_unary(f"/{HEALTH}/Check")
    for content in (b"\x0a\xff", b"\x0a\x80\x80\x40" + b"x" * 2**20):  # no message, and one too large
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await check(content)
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_stopping_waits_for_what_was_accepted(running):
    channel, networks, admission, server = running
    networks.gate.clear()
    request = pb.ScoreRequest.FromString(chunk(3)).SerializeToString()
    call = channel.unary_unary("/misfit.v1.MisfitService/Score")(request)
    while admission.in_flight["images"] != 3:
        await asyncio.sleep(0.01)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    networks.gate.set()
    assert len(pb.ScoreResponse.FromString(await call).items) == 3
    await stopping


def test_a_port_is_claimed_once_and_shared_by_workers_only():
    (port,) = free_ports(1)
    held = claim_port("127.0.0.1", port)
    with held, pytest.raises(OSError, match="in use") as refused:
        claim_port("127.0.0.1", port)
    assert refused.value.errno == errno.EADDRINUSE
    with claim_port("127.0.0.1", port), socket.socket() as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", port))
        worker.listen()
        with pytest.raises(OSError, match="in use"):
            claim_port("127.0.0.1", port)


def test_a_socket_outlives_its_file(tmp_path):
    path = tmp_path / "Inference.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen()
        addresses = {"Inference": f"file://{path}", "Misfit": "http://127.0.0.1:3000"}
        kept = shutdown.name_by_descriptor(addresses)
        path.unlink()
        client.connect(kept["Inference"].removeprefix("file://"))
        assert kept["Misfit"] == addresses["Misfit"]
        os.close(int(kept["Inference"].rpartition("/")[2]))


def test_a_signal_waits_until_nobody_holds_the_lock(tmp_path):
    addresses = {"Inference": f"file://{tmp_path}/Inference.sock"}
    holder, waiter = (shutdown.open_lock(addresses, shutdown.API) for _ in range(2))
    shutdown.hold_lock(holder)
    stopped = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:  # as a server does; a shell's background jobs begin with SIGINT ignored
            signal.signal(number, lambda number, frame: stopped.append(number))
        shutdown.stop_after_holders(waiter)
        signal.raise_signal(signal.SIGTERM)
        assert stopped == []
        os.close(holder)
        while not stopped:
            pass
        assert stopped == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waiter)


def test_without_sockets_there_is_no_lock():
    assert shutdown.open_lock({}, shutdown.API) is None
    assert shutdown.open_lock({"Misfit": "http://127.0.0.1:3000"}, shutdown.API) is None
    assert not shutdown.Watch(None).has_ended()


def test_the_end_of_a_process_shows_by_its_lock(tmp_path):
    addresses = {"Inference": f"file://{tmp_path}/Inference.sock"}
    watch = shutdown.Watch(shutdown.open_lock(addresses, shutdown.INFERENCE))
    assert not watch.has_ended()  # it has yet to start
    for _ in range(2):  # it is started again
        holder = shutdown.open_lock(addresses, shutdown.INFERENCE)
        shutdown.hold_lock(holder)
        assert not watch.has_ended()
        os.close(holder)
        assert watch.has_ended()
        assert watch.has_ended()


SUPERVISOR_SCRIPT = """
import os, subprocess, sys, time
from service.hosting import shutdown

shutdown.name_supervisor()
worker = "import time; from service.hosting import shutdown; shutdown.end_with_supervisor(); print(flush=True)"
child = subprocess.Popen([sys.executable, "-c", worker + "; time.sleep(600)"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_ends_with_its_supervisor_however_that_one_ends():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR_SCRIPT], stdout=subprocess.PIPE, env=environment)
    with supervisor:
        worker = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running()


def test_a_worker_whose_supervisor_is_gone_already_ends_at_once(monkeypatch):
    monkeypatch.setenv(shutdown.SUPERVISOR, "1" if os.getppid() != 1 else "2")
    ended = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    try:
        shutdown.end_with_supervisor()
        assert ended == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        ctypes.CDLL(None).prctl(shutdown.PR_SET_PDEATHSIG, 0)


def test_without_a_supervisor_a_worker_lives_on(monkeypatch):
    monkeypatch.delenv(shutdown.SUPERVISOR, raising=False)
    shutdown.end_with_supervisor()
