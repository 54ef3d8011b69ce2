"""What an attacker would try on a running service: none of it may run code, get in, get out, or take the memory."""

import hashlib
import http.client
import io
import json
import pickle
import resource
import socket
import stat
import tarfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import bodies
import calls
import grpc
import httpx
import psutil
import pytest
from serving import serve

from service.protos.misfit.v1 import misfit_pb2 as pb

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
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, given[1]))
    with serve(directory / "log", {"MISFIT_TOKENS_FILE": str(tokens)}) as running:
        resource.setrlimit(resource.RLIMIT_NOFILE, given)
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
    found = [each for process in processes(guarded) for each in process.net_connections("inet")]
    listening = {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}
    assert listening == {guarded.port, guarded.grpc_port}


def test_only_its_own_user_reaches_the_networks(guarded):
    """They are called by pickle."""
    found = {each.laddr for process in processes(guarded) for each in process.net_connections("unix")}
    (path,) = (Path(name) for name in found if name.endswith(".sock"))
    directory = path.parent.stat()
    assert stat.S_IMODE(directory.st_mode) == 0o700
    assert directory.st_uid == psutil.Process(guarded.process.pid).uids().real


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("POST", path) for path in ENDPOINTS],
        *[
            ("POST", path)
            for path in ("//score", "/livez/../score", "/score?/livez", "/score;/livez", "/livez/score", "*")
        ],
        *[("GET", path) for path in ("/", "/docs.json", "/schema.json", "/metrics/", "/static_content/../app.py")],
        ("OPTIONS", "/score"),
    ],
)
def test_nothing_but_probes_and_metrics_is_answered_without_a_token(guarded, method, path):
    for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"X-Forwarded-Prefix": "/livez"}):
        with closing(http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=60)) as connection:
            connection.request(method, path, headers=headers)
            # That there is no such path may be told to anybody.
            assert connection.getresponse().status in (400, 401, *([] if path in ENDPOINTS else [404])), path


def test_what_is_said_twice_is_not_let_in(guarded):
    for headers in (
        ["Authorization: Bearer no", f"Authorization: Bearer {TOKEN}"],
        ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: YQ=="],
    ):
        request = "\r\n".join(["GET /docs.json HTTP/1.1", "Host: x", *headers, "", ""])
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as connection:
            connection.sendall(request.encode())
            assert connection.recv(100).split()[1] in (b"401", b"403")


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


def test_the_page_about_the_api_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "https://www.googletagmanager.com" in page.text  # what BentoML has in it, and a browser is told to leave out
    sources = page.headers["content-security-policy"].partition(";")[0]
    assert sources == "default-src 'self' 'unsafe-inline' data:"


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
