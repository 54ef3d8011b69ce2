"""The log: one line for each request, ids on all others, as plain text or JSON; and the paths that HTTP has."""

import asyncio
import json
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from service.errors import InferenceUnavailable, Overloaded, ShapeMismatch
from service.hosting.path_allowlist import PathAllowlist
from service.telemetry import logs
from service.transports.http.middleware import AccessLog, Envelope
from service.transports.http.responses import build_error_response

NAMES = ("", "bentoml", "uvicorn.error", "circus", "service")


class Written:
    """What was written to standard output."""

    def __init__(self, capsys):
        self._capsys, self._text = capsys, ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text


@pytest.fixture
def written(capsys):
    """What is logged, once `logs.configure` was called; logging is as it was afterwards."""
    before = [(log := logging.getLogger(name), list(log.handlers), log.propagate, log.level) for name in NAMES]
    yield Written(capsys)
    for log, handlers, propagate, level in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def lines(written) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_call_is_one_line_of_json(written):
    logs.configure("json", "Misfit")
    with logs.Call("id-1", "POST", "/score", "10.0.0.1:5") as call:
        logs.add_images(60)
        logs.add_images(2)
        call.status = 200
    (line,) = lines(written)
    assert line.pop("seconds") >= 0
    assert line.pop("message").startswith("POST /score 200, 62 images, 0.0")
    assert line.pop("timestamp")
    assert line == {
        "level": "INFO",
        "logger": "service.access",
        "process": "Misfit",
        "request_id": "id-1",
        "method": "POST",
        "route": "/score",
        "client": "10.0.0.1:5",
        "status": 200,
        "images": 62,
    }


def test_a_call_is_one_line_of_text(written):
    logs.configure("plain", "Misfit")
    with logs.Call("id-1", "gRPC", "/misfit.v1.MisfitService/Score", "ipv4:10.0.0.1:5") as call:
        call.status = "OK"
    (line,) = written.getvalue().splitlines()
    assert "[INFO] [Misfit] gRPC /misfit.v1.MisfitService/Score OK, 0 images, 0.000 s request_id=id-1" in line


@pytest.mark.parametrize("style", ["plain", "json"])
def test_every_record_of_a_call_has_its_id_in_threads_and_tasks_too_and_others_have_none(written, style):
    logs.configure(style, "Misfit")

    async def work():
        await asyncio.to_thread(logging.getLogger("service.anything").warning, "in a thread")
        await asyncio.create_task(tell())

    async def tell():
        logging.getLogger("bentoml.anything").warning("in a task")

    async def calls():
        async def one(number):
            with logs.Call(number, "POST", "/score", ""):
                await work()

        await asyncio.gather(one("first"), one("second"))
        logging.getLogger("bentoml.anything").warning("outside")

    asyncio.run(calls())
    for text in ("in a thread", "in a task"):
        told = [line for line in written.getvalue().splitlines() if text in line]
        assert len(told) == 2
        assert {"first" in line for line in told} == {"second" in line for line in told} == {True, False}
    (outside,) = [line for line in written.getvalue().splitlines() if "outside" in line]
    assert "request_id" not in outside


def test_a_trace_is_one_line_of_json(written):
    logs.configure("json", "Misfit")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("service.x").exception("request failed")
    (line,) = lines(written)
    assert line["message"] == "request failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: broken")


def test_a_call_that_nobody_answered_says_so(written):
    logs.configure("json", "Misfit")
    with pytest.raises(KeyboardInterrupt), logs.Call("id", "POST", "/score", ""):
        raise KeyboardInterrupt
    assert lines(written)[0]["status"] == "unanswered"


def test_outside_of_a_call_nothing_is_noted():
    logs.add_images(1)
    logs.record_error("internal")


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def respond(request):
    return PlainTextResponse("here")


class Counting:
    """ASGI middleware in the place of BentoML's that counts."""

    def __init__(self, app, seen):
        self.app, self.seen = app, seen

    async def __call__(self, scope, receive, send):
        self.seen.append(scope.get("path"))
        await self.app(scope, receive, send)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "css").mkdir()
    (tmp_path / "css" / "page.css").write_text("a file")
    return StaticFiles(directory=tmp_path)


async def test_only_paths_that_there_are_get_to_the_server(files, written):
    logs.configure("json", "Misfit")
    seen = []
    app = Starlette(routes=[Route("/", respond), Route("/score", respond), Mount("/static", files)])
    app.add_middleware(Counting, seen=seen)
    async with client_of(PathAllowlist(app)) as client:
        there = ["/", "/score", "/score?a=b", "/static/css/page.css"]
        assert [(await client.get(path)).status_code for path in there] == [200] * 4
        not_there = ["/score/", "/Score", "/x/score", "/static/css", "/static/css/other.css", "/%00"]
        for path in not_there:
            response = await client.get(path, headers={"X-Request-ID": "mine"})
            assert response.status_code == 404, path
            assert response.json()["error"]["code"] == "not_found"
            assert response.headers["x-request-id"] == response.json()["request_id"] == "mine"
    assert seen == ["/", "/score", "/score", "/static/css/page.css"]
    assert [line["status"] for line in lines(written)] == [404] * len(not_there)


async def test_a_path_cannot_forge_a_line_of_the_log_nor_fill_it(written):
    logs.configure("plain", "Misfit")
    async with client_of(PathAllowlist(Starlette(routes=[Route("/", respond)]))) as client:
        await client.get("/a%0A2026-01-01 [INFO] forged" + "x" * 5_000)
    (line,) = written.getvalue().splitlines()
    assert "/a%0A2026-01-01%20%5BINFO%5D%20forgedxxx" in line
    assert len(line) < 300


async def test_websockets_are_closed_before_they_are_counted():
    seen, sent = [], []
    app = Starlette(routes=[Route("/", respond)])
    app.add_middleware(Counting, seen=seen)

    async def send(message):
        sent.append(message["type"])

    await PathAllowlist(app)({"type": "websocket", "path": "/"}, None, send)
    assert (seen, sent) == ([], ["websocket.close"])


@pytest.mark.parametrize("route", [Route("/{name}", respond), WebSocketRoute("/", respond)])
def test_a_route_whose_paths_cannot_be_listed_is_refused_at_the_start(route):
    with pytest.raises(TypeError, match="cannot be listed"):
        PathAllowlist(Starlette(routes=[route]))


@pytest.mark.parametrize(
    ("error", "status", "code", "trace"),
    [
        (ShapeMismatch("secret.png is wrong"), 422, "shape_mismatch", False),
        (Overloaded("full"), 429, "overloaded", False),
        (InferenceUnavailable("gone"), 503, "inference_unavailable", True),
        (RuntimeError("broken"), 500, "internal", True),
    ],
)
async def test_an_error_is_named_by_its_code_and_only_our_own_fault_has_a_trace(written, error, status, code, trace):
    logs.configure("json", "Misfit")

    async def fail(scope, receive, send):
        await build_error_response(error, scope)(scope, receive, send)

    async with client_of(AccessLog(Envelope(fail))) as client:
        await client.get("/score", headers={"X-Request-ID": "mine", "Authorization": "Bearer hush"})
    *traces, access = lines(written)
    assert (access["status"], access["error"], access["request_id"]) == (status, code, "mine")
    assert [line["request_id"] for line in traces] == (["mine"] if trace else [])
    assert "secret.png" not in written.getvalue()
    assert "hush" not in written.getvalue()


async def test_probes_and_scrapes_are_not_logged(written):
    logs.configure("json", "Misfit")
    async with client_of(AccessLog(Starlette(routes=[Route("/livez", respond), Route("/metrics", respond)]))) as client:
        assert (await client.get("/livez")).status_code == (await client.get("/metrics")).status_code == 200
    assert lines(written) == []
