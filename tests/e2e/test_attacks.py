"""What an attacker would try on a running service: none of it may run code, get in, get out, or take the memory."""

import hashlib
import http.client
import io
import json
import pickle
import re
import resource
import socket
import stat
import tarfile
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import bodies
import calls
import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import serve

from service.protos.misfit.v1 import misfit_pb2 as pb
from service.transports.grpc.health import MOST_WATCHES

TOKEN = "open sesame"
MIB = 1024 * 1024
ENDPOINTS = [
    "/score",
    "/explain",
    "/fit",
    "/edit",
    "/traverse",
    "/interpolate",
    "/sample",
    "/encode",
    "/decode",
    "/describe",
]
PICKLES = ["application/vnd.bentoml+pickle", "Application/Vnd.BentoML+Pickle", "application/x-pickle"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service that lets in only who has the token, with the limits and the few descriptors of many a default."""
    directory = tmp_path_factory.mktemp("guarded")
    tokens = directory / "tokens"
    tokens.write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    with serve(
        directory / "log", {"MISFIT_TOKENS_FILE": str(tokens), "MISFIT_CORS_ORIGINS": "https://app.example.com"}
    ) as running:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        yield running


@pytest.fixture(scope="module")
def client(guarded):
    with httpx.Client(base_url=guarded.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
        yield client


def post(client, path, body):
    return client.post(path, content=body[1], headers={"Content-Type": body[0]})


def processes(served):
    return [psutil.Process(served.process.pid), *psutil.Process(served.process.pid).children(recursive=True)]


class Touch:
    """Its pickle creates a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_loaded_whatever_it_is_called(client, tmp_path):
    touched = tmp_path / "touched"
    content = pickle.dumps(Touch(touched))
    pickle.loads(content)  # noqa: S301 - to see that it would work
    touched.unlink()
    npy = io.BytesIO(b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117))
    forms = [bodies.as_form([(field, "a", content)]) for field in ("images", "context", "options")]
    disguised = [("application/x-npy", npy.getvalue() + b"\n" + content), bodies.as_zip({"a.npy": content}), *forms]
    for path in ENDPOINTS:
        for body in [*((media_type, content) for media_type in PICKLES), *disguised]:
            for headers in ({}, {"Payload-Container": "DefaultContainer", "Payload-Meta": "{}", "Args-Number": "1"}):
                answer = client.post(path, content=body[1], headers={"Content-Type": body[0], **headers})
                assert path == "/describe" or 400 <= answer.status_code < 500, (path, body[0])
    assert not touched.exists()


def test_nothing_listens_but_the_two_ports(guarded):
    """Not the supervisor either, which would run any program that it is asked to."""
    connections = [each for process in processes(guarded) for each in process.net_connections("inet")]
    listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    assert listening == {guarded.port, guarded.grpc_port}


def test_only_its_own_user_reaches_networks_in_a_process_of_their_own(tmp_path):
    """They are called by pickle."""
    with serve(tmp_path / "log", {"MISFIT_INFERENCE_PROCESS": "own"}) as running:
        addresses = {each.laddr for process in processes(running) for each in process.net_connections("unix")}
        (path,) = (Path(name) for name in addresses if name.endswith(".sock"))
        directory = path.parent.stat()
        assert stat.S_IMODE(directory.st_mode) == 0o700
        assert directory.st_uid == psutil.Process(running.process.pid).uids().real


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("POST", path) for path in ENDPOINTS],
        *[
            ("POST", path)
            for path in ("//score", "/livez/../score", "/score?/livez", "/score;/livez", "/livez/score", "*")
        ],
        *[
            ("GET", path)
            for path in (
                "/docs",
                "/docs.json",
                "/schema.json",
                "/metrics/",
                "/static_content/../app.py",
                "/page/../docs",
            )
        ],
        ("OPTIONS", "/score"),
    ],
)
def test_nothing_but_probes_metrics_and_the_page_is_answered_without_a_token(guarded, method, path):
    for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"X-Forwarded-Prefix": "/livez"}):
        with closing(http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=60)) as connection:
            connection.request(method, path, headers=headers)
            # That there is no such path may be told to anybody.
            assert connection.getresponse().status in (400, 401, *([] if path in ENDPOINTS else [404])), path


def test_the_page_is_there_without_a_token_and_says_nothing_of_the_model(guarded):
    """A browser sends no token before a person has given it to the page."""
    for path in ("/", "/page/start.js", "/page/style.css"):
        answer = httpx.get(f"{guarded.url}{path}", timeout=60)
        assert answer.status_code == 200
        assert "shapes3d" not in answer.text
    assert httpx.get(f"{guarded.url}/page/index.html", timeout=60).status_code in (401, 404)


def test_preflight_requests_need_no_token_and_pages_may_read_refusals(guarded):
    url = guarded.url
    page = {"Origin": "https://app.example.com"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = [
        httpx.options(f"{url}/score", headers={**page, **asked}, timeout=60),
        httpx.post(f"{url}/score", headers=page, timeout=60),
        httpx.post(f"{url}/nowhere", headers=page, timeout=60),
    ]
    assert [answer.status_code for answer in allowed] == [200, 401, 404]
    assert {answer.headers["access-control-allow-origin"] for answer in allowed} == {page["Origin"]}
    refused = httpx.options(f"{url}/score", headers={"Origin": "https://evil.example", **asked}, timeout=60)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_what_is_said_twice_is_not_let_in(guarded):
    right = f"Authorization: Bearer {TOKEN}"
    for headers in (
        ["Authorization: Bearer no", right],
        [right, "Authorization: Bearer no"],
        [right, right],
        ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: YQ=="],
    ):
        request = "\r\n".join(["GET /docs.json HTTP/1.1", "Host: x", *headers, "", ""])
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as connection:
            connection.sendall(request.encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert response.status == 401
            assert (b"The request has 2 Authorization headers." in response.read()) == (len(headers) < 4)


def test_grpc_has_no_other_way_in(guarded):
    names = [f"/misfit.v1.MisfitService/{name}" for name in ("Score", "Decode", "Describe", "ScoreStream")]
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with grpc.insecure_channel(guarded.grpc_target) as channel:
        for name in [*names, reflection, "/grpc.health.v1.Health2/Check"]:
            for metadata in (
                (),
                (("authorization", f"basic {TOKEN}"),),
                (("authorization-bin", b"Bearer " + TOKEN.encode()),),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    list(channel.stream_stream(name)(iter([b""]), metadata=metadata, timeout=60))
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "others", [("Bearer no", f"Bearer {TOKEN}"), (f"Bearer {TOKEN}", "Bearer no"), (f"Bearer {TOKEN}",) * 2]
)
def test_grpc_takes_one_authorization_as_http_does(guarded, others):
    metadata = tuple(("authorization", value) for value in others)
    with grpc.insecure_channel(guarded.grpc_target) as channel:
        describe = channel.unary_unary("/misfit.v1.MisfitService/Describe")
        with pytest.raises(grpc.RpcError) as refused:
            describe(b"", metadata=metadata, timeout=60)
    status, detail = calls.error_of(refused.value)
    assert (status, detail.message) == (grpc.StatusCode.UNAUTHENTICATED, "The request has 2 Authorization headers.")


def test_no_url_is_fetched(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        field = [("images", None, url.encode())]
        sent = [
            ("application/json", json.dumps({"images": [url]}).encode()),
            ("application/json", json.dumps({"images": [{"url": url}]}).encode()),
            ("application/x-www-form-urlencoded", f"images={url}".encode()),
            bodies.as_form(field),
            bodies.as_form([("images", "a.url", f"[InternetShortcut]\nURL={url}".encode())]),
            bodies.as_form([("images", "a.svg", f'<svg><image href="{url}"/></svg>'.encode())]),
            bodies.as_zip({url: url.encode()}),
        ]
        for path in ENDPOINTS:
            for body in sent:
                assert path == "/describe" or 400 <= post(client, path, body).status_code < 500
        listener.settimeout(1)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere_and_have_no_script_of_their_own(client, path):
    page = client.get(path)
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert loaded
    for link in loaded:
        assert link.startswith("./")
        assert client.get(link[1:]).status_code == 200
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|javascript:", page.text)
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["script-src"] == "'self'"
    assert "http" not in page.headers["content-security-policy"]
    assert "blob:" in policy["img-src"]  # Swagger UI shows pictures of answers so


def highest(served) -> int:
    """The highest memory that any of its processes has had so far, in bytes."""
    texts = (Path(f"/proc/{process.pid}/status").read_text() for process in processes(served))
    return max(int(line.split()[1]) * 1024 for text in texts for line in text.splitlines() if line.startswith("VmHWM"))


def test_small_bodies_do_not_become_large_objects(guarded, client):
    many = 15_000_000  # of which each would take 60 to 200 bytes
    lists, texts = b"[],", b'"",'
    before = highest(guarded)
    for path, body in (
        ("/score", ("application/json", b'{"images":[' + texts * many + b'""]}')),
        ("/score", ("application/json", b'{"images":[""],"context":[' + lists * many + b"[]]}")),
        ("/decode", ("application/json", b'{"latents":[' + lists * many + b"[]]}")),
        ("/fit", bodies.as_form([("context", None, b"[" + lists * many + b"[]]")])),
        ("/encode", bodies.as_zip({"context.json": b"[" + lists * many + b"[]]"})),
    ):
        answer = post(client, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large"), path
    with grpc.insecure_channel(guarded.grpc_target, calls.UNLIMITED) as channel:
        for name, field in (("Score", 3), ("Fit", 3), ("Decode", 1)):  # contexts, and rows of latents
            content = bytes([field << 3 | 2, 0]) * many
            call = channel.unary_unary(f"/misfit.v1.MisfitService/{name}")
            with pytest.raises(grpc.RpcError) as refused:
                call(content, metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=60)
            status, detail = calls.error_of(refused.value)
            assert (status, detail.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_large")
    assert highest(guarded) - before < 500 * MIB


def test_grpc_unpacks_nothing(guarded):
    with grpc.insecure_channel(guarded.grpc_target, compression=grpc.Compression.Gzip) as channel:
        stub = calls.misfit_pb2_grpc.MisfitServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Score(
                pb.ScoreRequest(images=calls.files([bytes(MIB)])),
                metadata=(("authorization", f"Bearer {TOKEN}"),),
                timeout=60,
            )
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_silent_connections_keep_nobody_out(guarded):
    """Neither more of them than there are descriptors by default, nor for long."""
    request = b"POST /score HTTP/1.1\r\nHost: x\r\n"
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", guarded.port))) for _ in range(1200)]
        for number, connection in enumerate(silent):
            connection.sendall(request[: number % len(request)])
        assert guarded.status("/readyz") == 200
        for connection in silent:
            connection.settimeout(60)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    with closing(http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=60)) as spoken:
        for _ in range(3):  # one that does have requests is kept
            spoken.request("GET", "/livez")
            assert spoken.getresponse().read() is not None


def test_headers_of_a_tar_without_end_are_refused(client):
    header = tarfile.TarInfo("a.png")
    header.type = tarfile.XHDTYPE
    answer = post(client, "/score", ("application/x-tar", header.tobuf() * 10_000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")


def connect(served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=60)


def read_to_end(connection) -> bytes:
    """What comes until the server ends the connection. Raises TimeoutError where it does not."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


# Requests that are answered before their body is there, or without it.
EARLY = {
    "a probe": ("GET /livez", 200),
    "another": ("GET /readyz", 200),
    "counts": ("GET /metrics", 200),
    "no token": ("POST /score", 401),
    "no such path": ("PUT /nowhere", 404),
    "no such method": ("DELETE /score", 401),
    "not that method, with a token": (f"DELETE /score HTTP/1.1\r\nAuthorization: Bearer {TOKEN}", 405),
    "compressed": (f"POST /score HTTP/1.1\r\nContent-Encoding: gzip\r\nAuthorization: Bearer {TOKEN}", 415),
}
LENGTHS = {
    "Content-Length: 1000000": b"x",
    "Transfer-Encoding: chunked": b"1\r\nx\r\n",
}


def head_of(start: str, *headers: str) -> bytes:
    line = start if "HTTP/" in start else f"{start} HTTP/1.1"
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", EARLY)
def test_an_answer_to_part_of_a_request_ends_the_connection(guarded, name, length):
    """However the rest of the body comes: in drops, or not at all."""
    start, status = EARLY[name]
    for drop in (LENGTHS[length], *([b""] if name == "a probe" else [])):
        with connect(guarded) as connection:
            connection.sendall(head_of(start, length) + drop)
            answer, deadline = b"", time.monotonic() + 60
            connection.settimeout(0.2)
            while True:
                assert time.monotonic() < deadline, "the connection goes on"
                try:
                    connection.sendall(drop)
                    if not (piece := connection.recv(65536)):
                        break
                    answer += piece
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        assert answer.split()[1] == str(status).encode()
        assert b"\r\nconnection: close\r\n" in answer.lower()


@pytest.mark.parametrize("name", EARLY)
def test_a_body_that_goes_on_after_the_answer_is_not_read(guarded, name):
    """Before, it was: for as long as it went on, at more than a gigabyte a second."""
    start, status = EARLY[name]
    with connect(guarded) as connection:
        connection.sendall(head_of(start, f"Content-Length: {10**12}"))
        sent, block = 0, bytes(MIB)
        with suppress(ConnectionError):
            while sent < 1000 * MIB:
                sent += connection.send(block)
        assert sent < 100 * MIB  # most of it in the buffers of the system
        assert connection.recv(100).split()[1] == str(status).encode()


def test_one_who_waits_for_the_go_ahead_is_refused_without_it(guarded):
    with connect(guarded) as connection:
        connection.sendall(head_of("POST /score", "Content-Length: 1000000", "Expect: 100-continue"))
        answer = read_to_end(connection)
    assert answer.split()[1] == b"401"
    assert b"100 Continue" not in answer


def test_a_whole_request_keeps_its_connection(guarded):
    """Refused or not, with a body or without."""
    with closing(http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=60)) as connection:
        for path, body in (("/livez", None), ("/score", None), ("/nowhere", None), ("/livez", None)):
            connection.request("GET", path, body)
            answer = connection.getresponse()
            assert answer.read() is not None
            assert answer.headers["connection"] is None
            assert connection.sock is not None


# After each, the server and a proxy could disagree on where the next request begins.
HIDING = {
    "both lengths": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "the other way": ["Transfer-Encoding: chunked", "Content-Length: 4"],
    "two lengths": ["Content-Length: 0", "Content-Length: 100"],
    "a list": ["Content-Length: 0, 100"],
    "chunked, identity": ["Transfer-Encoding: chunked, identity"],
    "a fold": ["X: y", " z", "Transfer-Encoding: chunked"],
    "a folded coding": ["Transfer-Encoding:", "\tchunked"],
    "a space": ["Transfer-Encoding : chunked"],
}


@pytest.mark.parametrize("name", HIDING)
def test_no_request_hides_in_another(guarded, name):
    hidden = b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    for before in (b"", head_of("GET /livez")):  # the first of a connection, and one that follows
        with connect(guarded) as connection:
            connection.sendall(before + head_of("POST /score", *HIDING[name]) + hidden)
            received = read_to_end(connection)
        assert received.count(b"HTTP/1.1 200 ") == (1 if before else 0)
        assert received.count(b"HTTP/1.1 400 ") == 1
        assert b"connection: close" in received
        assert json.loads(received.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_input"


def test_what_is_no_http_leaves_no_trace(guarded):
    """Least of all one for every packet: also where the answer has begun, or there has been one before."""
    requests = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        head_of("POST /score", "Transfer-Encoding: chunked") + b"zz\r\n",
        head_of("HEAD /livez", "Transfer-Encoding: chunked") + b"zz\r\n",
        head_of("CONNECT x:1") + b"abc",
        head_of("GET /livez", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: x") * 2,
        head_of("GET /livez") + b"\0" * 100,
    ]
    logged = len(guarded.log.read_text())
    for request in requests:
        with connect(guarded) as connection:
            connection.sendall(request)
            time.sleep(0.1)
            with suppress(ConnectionError):
                connection.sendall(b"\0zz\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert read_to_end(connection) is not None
    assert guarded.status("/livez") == 200
    assert "Traceback" not in guarded.log.read_text()[logged:]


def test_tiny_chunks_keep_nobody_waiting(guarded):
    """Each costs a server as much as a kilobyte: five connections were enough for five seconds a probe."""
    head = head_of(f"POST /score HTTP/1.1\r\nAuthorization: Bearer {TOKEN}", "Transfer-Encoding: chunked")
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(guarded)) for _ in range(5)]
        for connection in connections:
            connection.settimeout(1)
            connection.sendall(head)
            with suppress(OSError):
                connection.sendall(b"1\r\nx\r\n" * 1_000_000)
        for connection in connections:
            connection.settimeout(60)
            assert b"400" in connection.recv(100)


def test_health_streams_are_bounded_and_checks_go_on(guarded):
    own = (("grpc.use_local_subchannel_pool", 1),)
    request = health_pb2.HealthCheckRequest()
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(guarded.grpc_target, own)) for _ in range(6)]
        streams = [health_pb2_grpc.HealthStub(each).Watch(request, timeout=60) for each in channels for _ in range(95)]
        ends = []
        for stream in streams:
            try:
                assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
            except grpc.RpcError as error:
                ends.append(error.code())
        assert ends == [grpc.StatusCode.RESOURCE_EXHAUSTED] * (len(streams) - MOST_WATCHES)
        assert health_pb2_grpc.HealthStub(channels[0]).Check(request, timeout=60).status == 1
        for stream in streams:
            stream.cancel()
        deadline = time.monotonic() + 60
        while True:  # once they are closed there is room again
            again = health_pb2_grpc.HealthStub(channels[0]).Watch(request, timeout=60)
            try:
                assert next(again).status == 1
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline


def test_large_messages_of_strangers_are_not_received(guarded):
    """The health service needs no token, and its messages fit into a packet."""
    worker, peak = guarded.worker("Misfit"), 0
    before = worker.memory_info().rss
    request = health_pb2.HealthCheckRequest(service="x" * 40 * MIB)
    with grpc.insecure_channel(guarded.grpc_target, calls.UNLIMITED) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        checks = [health.Check.future(request, timeout=60) for _ in range(60)]
        while not all(check.done() for check in checks):
            peak = max(peak, worker.memory_info().rss)
            time.sleep(0.01)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=60).status == 1
    assert peak - before < 1500 * MIB, (peak - before) // MIB  # of 2,400 MiB offered, which would be there twice


def test_names_of_services_are_not_kept(guarded):
    worker = guarded.worker("Misfit")
    with grpc.insecure_channel(guarded.grpc_target, calls.UNLIMITED) as channel:
        health, sizes = health_pb2_grpc.HealthStub(channel), []
        for number in range(200):
            stream = health.Watch(health_pb2.HealthCheckRequest(service=f"{number}" + "x" * MIB), timeout=60)
            with suppress(grpc.RpcError):
                next(stream)
            stream.cancel()
            sizes.append(worker.memory_info().rss)
    assert sizes[-1] - sizes[20] < 100 * MIB  # of 180 MiB
