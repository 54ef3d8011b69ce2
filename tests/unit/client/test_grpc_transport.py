"""The Python client's gRPC against a server in this process: streams, TLS and tokens; and TLS over HTTP."""

import asyncio
import hashlib
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
from fakes import FakeNetworks
from prometheus_client import CollectorRegistry
from serving import free_ports

from service.client.client import AsyncClient, CallError, Client, Retries
from service.client.grpc_transport import Ending
from service.images.pictures.png import to_png
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.transports.admission import Admission
from service.transports.dispatch import Dispatcher
from service.transports.grpc.server import Server

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8)
TOKEN = "open sesame"


class Networks(FakeNetworks):
    """Latents that depend on the images alone."""

    def __init__(self, latent_dim):
        self.mixing = np.random.default_rng(1).normal(size=(64 * 64 * 3, 2 * latent_dim)) / 2000

    async def encode(self, images):
        flat = images.reshape(len(images), -1) - 127.5
        return (flat @ self.mixing).reshape(len(images), 2, -1).astype(np.float32)

    async def decode(self, latents):
        return np.zeros((len(latents), 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 1 -subj /CN=localhost"
    subprocess.run([*command.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return certificate


@pytest.fixture
async def running(served_bundle, certificate, tmp_path):
    """A server with TLS and tokens: its address, and its admission."""
    (port,) = free_ports(1)
    tokens = tmp_path / "tokens"
    tokens.write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
    settings = Settings(
        grpc_host="127.0.0.1", grpc_port=port, tokens_file=tokens, max_stream_images=1000, max_images=200,
        max_rows_in_flight=200, grpc_tls_cert=certificate, grpc_tls_key=certificate.with_name("key.pem"),
    )  # fmt: skip
    admission = Admission(settings.max_rows_in_flight, settings.max_bytes_in_flight)
    networks = Networks(served_bundle.manifest.latent_dim)

    async def provider():
        return "none"

    metrics = Metrics(served_bundle, CollectorRegistry())
    dispatcher = Dispatcher(Pipeline(served_bundle, networks, settings), admission, metrics, provider)
    server = Server({"": dispatcher}, provider, settings)
    await server.start()
    yield f"grpcs://localhost:{port}", admission
    await server.stop()


@pytest.fixture
async def client(running, certificate):
    async with AsyncClient(running[0], token=TOKEN, ca_file=certificate) as client:
        yield client


async def test_a_token_and_a_certificate_are_needed(running, certificate, client):
    assert (await client.describe()).provider == "none"
    async with AsyncClient(running[0], token="open barley", ca_file=certificate) as stranger:
        with pytest.raises(CallError) as failed:
            await stranger.describe()
        assert failed.value.code == "unauthenticated"
    async with AsyncClient(running[0], token=TOKEN, retries=Retries(attempts=1)) as trusting_others:
        with pytest.raises(CallError) as failed:
            await trusting_others.describe()
        assert failed.value.code == "unavailable"


async def test_a_stream_in_chunks_is_the_whole_batch(client):
    whole = await client.score(IMAGES, foreign="off")
    chunks = [IMAGES[:7], IMAGES[7:20], IMAGES[20:20], IMAGES[20:]]

    async def coming():
        for chunk in chunks:
            await asyncio.sleep(0)
            yield chunk

    for given in (chunks[:2] + chunks[3:], iter(chunks[:2] + chunks[3:])):
        assert await client.score_stream(given, foreign="off") == whole
    with pytest.raises(CallError, match=r"0 images|shape \(0"):
        await client.score_stream([IMAGES[:0]], foreign="off")
    assert len((await client.score_stream(coming(), foreign="off", reference=IMAGES)).items) == 50


async def test_ids_of_nameless_files_count_through_the_chunks_of_a_stream(client):
    files = [to_png(image) for image in IMAGES[:6]]
    answer = await client.score_stream([files[:4], files[4:]], foreign="off")
    assert [item.id for item in answer.items] == ["0", "1", "2", "3", "4", "5"]


async def test_a_stream_of_many_pieces_from_a_plain_client(running, certificate):
    def streamed():
        with Client(running[0], token=TOKEN, ca_file=certificate) as client:
            return client.score_stream((IMAGES for _ in range(20)), foreign="off", estimator="robust")

    answer = await asyncio.to_thread(streamed)
    assert [(item.index, item.id) for item in answer.items] == [(place, str(place)) for place in range(1000)]
    assert answer.context.size == 1000


async def test_a_stream_that_is_refused_before_its_end_stops_asking_for_chunks(client):
    asked = 0

    async def endless():
        nonlocal asked
        while True:
            asked += 1
            await asyncio.sleep(0)
            yield IMAGES

    with pytest.raises(CallError, match="more than 1000 images"):
        await client.score_stream(endless(), foreign="off")
    assert asked < 1000


class Ended:
    """A stream that is given one status after the other."""

    async def code(self):
        return self.status[0]

    async def details(self):
        return self.status[1]

    async def trailing_metadata(self):
        return self.status[2]

    def add_done_callback(self, callback):
        self.callback = callback

    def end(self, *status):
        self.status = status
        self.callback(self)


REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, "more than 1000 images", grpc.aio.Metadata(("x-request-id", "7")))
BROKEN = (grpc.StatusCode.INTERNAL, "Internal error from Core", None)


@pytest.mark.parametrize("statuses", [(REFUSED,), (REFUSED, BROKEN), (BROKEN, REFUSED)])
async def test_how_the_peer_ended_a_stream_outlives_a_failing_write(statuses):
    stream = Ended()
    ending = Ending(stream)
    error = asyncio.create_task(ending.error())
    for status in statuses:
        await asyncio.sleep(0)
        stream.end(*status)
    assert (await error).details() == "more than 1000 images"
    assert (await error).trailing_metadata()["x-request-id"] == "7"


@pytest.mark.parametrize(("statuses", "said"), [((), "The stream broke off."), ((BROKEN,), BROKEN[1])])
async def test_a_peer_that_says_nothing_is_not_waited_for_forever(monkeypatch, statuses, said):
    monkeypatch.setattr("service.client.grpc_transport.PEER_SECONDS", 0.01)
    stream = Ended()
    ending = Ending(stream)
    for status in statuses:
        stream.end(*status)
    assert (await ending.error()).details() == said


async def test_an_error_of_the_chunks_own_ends_the_stream_and_is_raised(running, client):
    def failing():
        yield IMAGES
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await client.score_stream(failing())
    while running[1].in_flight["images"]:
        await asyncio.sleep(0.01)


async def test_a_call_that_is_given_up_frees_its_rows(running, client):
    calling = asyncio.create_task(client.score_stream(waiting()))
    while running[1].in_flight["images"] == 0:
        await asyncio.sleep(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    while running[1].in_flight["images"]:
        await asyncio.sleep(0.01)


async def waiting():
    yield IMAGES
    await asyncio.Event().wait()


async def test_an_overload_is_waited_out(running, certificate, client):
    with running[1].ticket() as others:
        others.take_images(180)
        async with AsyncClient(running[0], token=TOKEN, ca_file=certificate, retries=Retries(attempts=1)) as impatient:
            with pytest.raises(CallError) as failed:
                await impatient.encode(IMAGES)
        assert (failed.value.code, failed.value.retry_after) == ("overloaded", 1)
        calling = asyncio.create_task(client.encode(IMAGES))
        await asyncio.sleep(0)
    assert len((await calling).items) == 50


class Describing(BaseHTTPRequestHandler):
    def do_POST(self):
        content = b'{"bundle_id": "b", "model": "m", "latents": [], "items": []}'
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def test_https_is_verified_by_the_ca_file(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Describing) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *args: None  # of the client that turns away
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"https://localhost:{server.server_port}"
        try:
            with Client(url, ca_file=certificate) as client:
                assert client.encode(IMAGES).model == "m"
            with Client(url, retries=Retries(attempts=1)) as client, pytest.raises(CallError, match="CERTIFICATE"):
                client.encode(IMAGES)
        finally:
            server.shutdown()
            thread.join()
