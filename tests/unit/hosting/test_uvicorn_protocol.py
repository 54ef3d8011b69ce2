"""Bounds of HTTP connections in time and number, how a refused request ends, and what of uvicorn is used."""

import asyncio
import json
import logging
import random
import re
import resource

import pytest
from connections import Transport
from uvicorn import Config
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

from service.hosting import uvicorn_protocol
from service.hosting.uvicorn_protocol import BoundedProtocol

BOTH_LENGTHS = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def never(scope, receive, send):
    await asyncio.Event().wait()


@pytest.fixture
async def opened():
    """A function that opens a connection to an application; all belong to one server."""
    state, loop = ServerState(), asyncio.get_running_loop()

    def opened(app=never):
        protocol = BoundedProtocol(Config(app, log_config=None, lifespan="off"), state, {}, loop)
        protocol.connection_made(Transport())
        return protocol

    yield opened
    for task in state.tasks:
        task.cancel()
    for protocol in list(state.connections):
        protocol.connection_lost(None)


async def test_uvicorn_takes_the_protocol_with_its_bounds(opened):
    """Also: it has the attributes that are used here."""
    uvicorn_protocol.bound_connections()
    config = Config(never, log_config=None)
    config.load()
    assert config.http_protocol_class is BoundedProtocol
    assert config.ws_protocol_class is None
    assert {"cycle", "flow", "connections", "client", "transport", "loop", "app"} <= vars(opened()).keys()
    assert {"disconnected", "message_event", "response_complete", "response_started", "transport"} <= vars_of_a_cycle()


def vars_of_a_cycle() -> set[str]:
    return set(httptools_impl.RequestResponseCycle.__init__.__code__.co_names)


async def test_what_is_refused_is_told_why_and_what_follows_is_dropped(opened):
    protocol = opened()
    protocol.data_received(BOTH_LENGTHS)
    head, _, body = protocol.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in head
    answer = json.loads(body)
    assert answer["error"]["code"] == "invalid_input"
    assert (
        answer["error"]["message"]
        == "The request is not valid HTTP/1.1: Transfer-Encoding can't be present with Content-Length."
    )
    assert f"x-request-id: {answer['request_id']}".encode() in head
    assert f"content-length: {len(body)}".encode() in head
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert protocol.transport.written.endswith(body)
    protocol.timeout_keep_alive_handler()
    protocol.shutdown()  # also where h11 could not end the connection in order
    assert protocol.transport.is_aborted


async def test_an_application_whose_body_turns_out_wrong_is_told_that_the_client_is_gone(opened):
    heard = []

    async def app(scope, receive, send):
        heard.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})  # which goes nowhere

    protocol = opened(app)
    protocol.data_received(CHUNKED.replace(b"POST", b"HEAD") + b"1\r\nxyz\r\n0\r\n\r\n")
    await asyncio.gather(*protocol.tasks)
    assert heard == ["http.disconnect"]
    assert protocol.transport.written.count(b"content-length") == 1  # one answer


def head(path: str = "/", length: int = 0) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("received", "limit"),
    [
        (b"", uvicorn_protocol.HEAD_SECONDS),
        (b"GET / HTTP/1.1\r\nHo", uvicorn_protocol.HEAD_SECONDS),
        (head(length=9) + b"half", 60 + uvicorn_protocol.BODY_GRACE_SECONDS),
        (CHUNKED + 2 * b"1\r\nx\r\n", 60 + uvicorn_protocol.BODY_GRACE_SECONDS),
    ],
)
async def test_heads_and_bodies_have_their_time(opened, received, limit):
    protocol = opened()
    if received:
        protocol.data_received(received)
    now = protocol.since
    assert not protocol._is_late(now + limit)
    assert protocol._is_late(now + limit + 0.1)


async def test_the_service_has_its_own_time_to_work(opened):
    protocol = opened()
    protocol.data_received(head(length=4) + b"full")
    assert not protocol._is_late(protocol.since + 3600)


async def test_an_answer_has_to_be_read(opened):
    protocol = opened()
    protocol.data_received(head())
    now, transport = protocol.since, protocol.transport
    for number in range(1, 20):  # slowly, but it is
        transport.buffered = 10**8 - number * uvicorn_protocol.ANSWER_BYTES
        assert not protocol._is_late(now := now + uvicorn_protocol.ANSWER_SECONDS / 2)
    transport.buffered -= uvicorn_protocol.ANSWER_BYTES // 2  # too slowly
    assert not protocol._is_late(now + uvicorn_protocol.ANSWER_SECONDS)
    assert protocol._is_late(now + uvicorn_protocol.ANSWER_SECONDS + 0.1)
    transport.buffered = 0  # by now the rest is read
    assert not protocol._is_late(now + uvicorn_protocol.ANSWER_SECONDS + 0.1)


async def test_those_that_wait_for_their_clients_make_room(opened, monkeypatch):
    monkeypatch.setattr(uvicorn_protocol, "get_max_connections", lambda: 4)
    at_work, silent, sending, idle = (opened() for _ in range(4))
    for age, protocol in enumerate((idle, sending, silent)):
        protocol.since -= 100 - age
    at_work.data_received(head(length=4) + b"full")
    sending.data_received(head(length=4) + b"ha")
    sending.since -= 98.5  # longer than `silent`
    monkeypatch.setattr(uvicorn_protocol, "MAKE_ROOM_SHARE", 0)
    for victim in (idle, sending, silent):
        new = opened()
        new.data_received(head(length=4) + b"full")
        assert victim.transport.is_aborted
        assert not new.transport.is_aborted
        victim.connection_lost(None)
    assert not at_work.transport.is_aborted
    assert opened().transport.is_aborted  # all others are being served


def test_a_full_process_is_logged_once_and_everything_else_always():
    repeat_filter = uvicorn_protocol.RepeatFilter()

    def passes(text: str, seconds: float) -> bool:
        record = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, text, (), None)
        record.created = seconds
        return repeat_filter.filter(record)

    full = "socket.accept() out of system resource\nsocket: <socket.socket>"
    assert [passes(full, 100 + seconds) for seconds in (0, 1, 59, 60, 61)] == [True, False, False, True, False]
    assert all(passes("Task was destroyed but it is pending!", 100) for _ in range(3))


def test_there_are_fewer_connections_than_descriptors():
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 0 < uvicorn_protocol.get_max_connections() < descriptors


async def answer_of(opened, request, length=0):
    """What the protocol writes, piece by piece, while its application sends an answer of `length` bytes."""

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * length})

    protocol, pieces = opened(app), []
    protocol.transport.write = pieces.append
    protocol.data_received(request)
    await asyncio.gather(*protocol.tasks)
    return [piece for piece in pieces if piece]


@pytest.mark.parametrize("length", [0, 1])
async def test_the_head_of_an_answer_is_written_with_the_first_of_its_body(opened, length):
    (answer,) = await answer_of(opened, head(), length)
    assert answer == f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode() + b"x" * length


async def test_the_answer_to_head_and_leave_to_go_on_are_written_as_well(opened):
    (answer,) = await answer_of(opened, head().replace(b"POST", b"HEAD"), 7)
    assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
    first, answer = await answer_of(opened, head().replace(b"Host", b"Expect: 100-continue\r\nHost"), 1)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.endswith(b"\r\n\r\nx")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "refused",
    [
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
        BOTH_LENGTHS,
        b"GET / HTTP/1.1\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b",
    ],
)
@pytest.mark.parametrize("step", [20, 10_000])
async def test_what_comes_before_a_refused_request_is_answered_first(opened, count, refused, step):
    bodies = []

    async def app(scope, receive, send):
        bodies.append((await receive()).get("body"))
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    protocol = opened(app)
    sent = count * (head(length=4) + b"full") + refused + head()
    for start in range(0, len(sent), step):
        protocol.data_received(sent[start : start + step])
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    written = protocol.transport.written
    assert (written.count(b"HTTP/1.1 200 "), written.count(b"HTTP/1.1 400 ")) == (count, 1)
    assert written.index(b"HTTP/1.1 400 ") > written.rindex(b"HTTP/1.1 200 ")
    assert b"".join(bodies) == count * b"full"


async def echo(scope, receive, send):
    """Answer with the method, the path and the body of the request."""
    body, is_whole = b"", False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, is_whole = body + message["body"], not message["more_body"]
    answer = f"{scope['method']} {scope['path']} ".encode() + body
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(answer)).encode())]}
    )
    await send({"type": "http.response.body", "body": answer})


async def write_all(opened, pieces):
    """Return what a connection to `echo` writes, which may work between the pieces."""
    protocol = opened(echo)
    for piece in pieces:
        if not protocol.transport.is_closing():
            protocol.data_received(piece)
        if len(pieces) > 1:
            await asyncio.sleep(0)
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    return protocol.transport.written


UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
REQUESTS = [
    head(length=4) + b"full",
    head().replace(b"POST", b"HEAD"),
    CHUNKED + b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nTrailer: x\r\n\r\n",
    head(length=4).replace(b"Host", UPGRADE + b"Host") + b"full",
    CHUNKED.replace(b"Host", UPGRADE + b"Host") + b"2\r\n\r\n\r\n0\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
]
LAST = [
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    BOTH_LENGTHS,
    CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nContent-Length: 1\r\n\r\n",
    b"GET / HT",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("seed", range(60))
async def test_answers_do_not_depend_on_how_the_network_cuts_the_requests(opened, seed):
    generator = random.Random(seed)
    sent = b"".join(generator.choices(REQUESTS, k=generator.randint(1, 5))) + generator.choice(LAST)
    cuts = sorted(generator.sample(range(1, len(sent)), 5))
    ways = [
        [sent],
        [sent[at : at + 1] for at in range(len(sent))],
        [sent[first:last] for first, last in zip([0, *cuts], [*cuts, len(sent)], strict=True)],
    ]
    # "100 Continue" depends on how much of the body has come. Each refusal has an ID of its own.
    written = {
        re.sub(b"HTTP/1.1 100 Continue\r\n\r\n|HTTP/1.1 400 .*", b"", await write_all(opened, way), flags=re.DOTALL)
        for way in ways
    }
    assert len(written) == 1


@pytest.mark.parametrize("request_", [REQUESTS[0], REQUESTS[3], REQUESTS[5]])
async def test_very_many_requests_in_one_read_are_all_answered_and_wait_as_bytes(opened, request_):
    count = 3000
    protocol = opened(echo)
    protocol.data_received(count * request_)
    most = uvicorn_protocol.LINGER_BYTES // 8
    assert len(protocol.pipeline) * len(request_) < most
    while protocol.tasks:
        assert len(protocol.pipeline) * len(request_) < most
        await asyncio.gather(*protocol.tasks)
    assert protocol.transport.written.count(b"HTTP/1.1 200 ") == count


@pytest.mark.parametrize("length", [16_000, 16_500])
async def test_a_long_head_behind_another_request_is_refused(opened, length):
    long = head().replace(b"Host", b"X: " + length * b"a" + b"\r\nHost")
    written = await write_all(opened, [head() + long])
    assert re.findall(rb"HTTP/1.1 (\d+)", written) == [b"200", b"200" if length == 16_000 else b"400"]


async def test_a_head_is_answered_before_what_is_refused_behind_it(opened):
    request = head(length=4).replace(b"POST", b"HEAD") + b"full"
    written = await write_all(opened, [request + request + CHUNKED + b"zz\r\n"])
    assert re.findall(rb"HTTP/1.1 (\d+)", written) == [b"200", b"200", b"400"]


@pytest.mark.parametrize("pieces", [[b"ab", b"", b"c"], [b""]])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_an_answer_to_http_1_0_has_no_chunks(opened, pieces, method):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    protocol = opened(app)
    protocol.data_received(method + b" / HTTP/1.0\r\n\r\n")
    await asyncio.gather(*protocol.tasks)
    body = b"" if method == b"HEAD" else b"".join(pieces)
    assert protocol.transport.written == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body
    assert protocol.transport.is_closing()


async def test_an_application_hears_that_its_client_is_gone_although_other_requests_wait(opened):
    heard = []

    async def app(scope, receive, send):
        heard.extend([(await receive())["type"], (await receive())["type"]])

    protocol = opened(app)
    protocol.data_received(head() + head() + head())
    await asyncio.sleep(0)
    protocol.transport.abort()
    protocol.connection_lost(None)
    await asyncio.gather(*protocol.tasks)
    assert heard == ["http.request", "http.disconnect"]


async def test_a_server_that_stops_answers_what_it_works_on_and_no_more(opened):
    protocol = opened(echo)
    protocol.data_received(3 * REQUESTS[0])
    protocol.shutdown()
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    assert protocol.transport.written.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in protocol.transport.written
    assert protocol.transport.is_closing()
