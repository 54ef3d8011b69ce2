"""Bounds of HTTP connections: requests that another server would read differently, and what of uvicorn is used."""

import asyncio
import json
import logging
import resource

import h11
import pytest
from uvicorn import Config
from uvicorn.protocols.http import h11_impl
from uvicorn.server import ServerState

from service.hosting import uvicorn_protocol
from service.hosting.uvicorn_protocol import BoundedProtocol, StrictConnection

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# Each is a request that some servers end elsewhere than others, or do not read at all.
AMBIGUOUS = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "both, by other names": b"POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: CHUNKED\r\nCONTENT-LENGTH: 0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\n",
    "a length with a sign": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
    "a length that is negative": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a length in hexadecimal": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n",
    "an endless length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "chunked, identity": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "xchunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a vertical tab": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n",
    "a folded header": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a header folded by a tab": b"POST / HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n",
    "a folded header, bare line feeds": b"POST / HTTP/1.1\nHost: x\nX: a\n b\n\n",
    "a first header that goes on": b"POST / HTTP/1.1\r\n Host: x\r\n\r\n",
    "two hosts": b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a bare carriage return": b"POST / HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 5\r\n\r\n",
    "a null byte": b"POST / HTTP/1.1\r\nHost: x\r\nX: a\0\r\n\r\n",
    "a chunk's length with a sign": CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n",
}


def read(*pieces: bytes) -> list[object]:
    """Return the events that the pieces lead to, one after the other."""
    connection, events = StrictConnection(), []
    for piece in pieces:
        connection.receive_data(piece)
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            events.append(event)
    return events


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_ambiguous_requests_are_refused_however_they_are_cut(name, step):
    request = AMBIGUOUS[name]
    with pytest.raises(h11.RemoteProtocolError):
        read(*(request[start : start + step] for start in range(0, len(request), step)))


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na\r\n b\r\n c",  # a body may look like a fold
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n \t\r\n0\r\nTrailer: x\r\n\r\n",
        b"POST / HTTP/1.1\nHost: x\nContent-Length: 4\n\n\n \n ",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_plain_requests_are_read_however_they_are_cut(request_, step):
    events = read(*(request_[start : start + step] for start in range(0, len(request_), step)))
    assert isinstance(events[0], h11.Request)
    assert isinstance(events[-1], h11.EndOfMessage)


def test_a_second_request_is_checked_as_the_first():
    connection = StrictConnection()
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n")
    assert [type(connection.next_event()) for _ in range(2)] == [h11.Request, h11.EndOfMessage]
    for event in (h11.Response(status_code=200, headers=[("content-length", "0")]), h11.EndOfMessage()):
        connection.send(event)
    connection.start_next_cycle()
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()


def chunked(chunk: bytes, count: int) -> bytes:
    return CHUNKED + count * (f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")


def test_a_body_of_tiny_chunks_is_refused():
    read(chunked(b"x", uvicorn_protocol.FREE_CHUNKS))
    read(chunked(b"x" * uvicorn_protocol.MEAN_CHUNK_BYTES, 3 * uvicorn_protocol.FREE_CHUNKS))
    with pytest.raises(h11.RemoteProtocolError, match="chunks of fewer than"):
        read(chunked(b"x", uvicorn_protocol.FREE_CHUNKS + 1))


class Socket:
    """One of a client over TCP, of which the system tells nothing else."""

    def getpeername(self):
        return ("127.0.0.1", 1)

    getsockname = getpeername

    def fileno(self):
        raise OSError


class Transport(asyncio.Transport):
    """What a protocol writes, and whether it has aborted."""

    def __init__(self) -> None:
        super().__init__({"socket": Socket()})
        self.written, self.is_aborted, self.buffered = b"", False, 0

    def write(self, data):
        self.written += data

    def abort(self):
        self.is_aborted = True

    close = abort

    def is_closing(self):
        return self.is_aborted

    def get_write_buffer_size(self):
        return self.buffered

    def pause_reading(self):
        pass

    resume_reading = pause_reading


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
    uvicorn_protocol.limit()
    config = Config(never, log_config=None)
    config.load()
    assert config.http_protocol_class is BoundedProtocol
    assert config.ws_protocol_class is None
    assert {"conn", "cycle", "flow", "connections", "client", "transport", "loop", "app"} <= vars(opened()).keys()
    assert {"disconnected", "message_event", "response_complete"} <= vars_of_a_cycle()


def vars_of_a_cycle() -> set[str]:
    return set(h11_impl.RequestResponseCycle.__init__.__code__.co_names)


async def test_what_is_refused_is_told_why_and_what_follows_is_dropped(opened):
    protocol = opened()
    protocol.data_received(AMBIGUOUS["both lengths"])
    head, _, body = protocol.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in head
    answer = json.loads(body)
    assert answer["error"]["code"] == "invalid_input"
    assert answer["error"]["message"] == "The request has both Content-Length and Transfer-Encoding."
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
    protocol.data_received(AMBIGUOUS["a chunk longer than it says"].replace(b"POST", b"HEAD"))
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
        (chunked(b"x", 2), 60 + uvicorn_protocol.BODY_GRACE_SECONDS),
    ],
)
async def test_heads_and_bodies_have_their_time(opened, received, limit):
    protocol = opened()
    if received:
        protocol.data_received(received)
    now = protocol.conn.since
    assert not protocol._is_late(now + limit)
    assert protocol._is_late(now + limit + 0.1)


async def test_the_service_has_its_own_time_to_work(opened):
    protocol = opened()
    protocol.data_received(head(length=4) + b"full")
    assert not protocol._is_late(protocol.conn.since + 3600)


async def test_an_answer_has_to_be_read(opened):
    protocol = opened()
    protocol.data_received(head())
    now, transport = protocol.conn.since, protocol.transport
    for number in range(1, 20):  # slowly, but it is
        transport.buffered = 10**8 - number * uvicorn_protocol.ANSWER_BYTES
        assert not protocol._is_late(now := now + uvicorn_protocol.ANSWER_SECONDS / 2)
    transport.buffered -= uvicorn_protocol.ANSWER_BYTES // 2  # too slowly
    assert not protocol._is_late(now + uvicorn_protocol.ANSWER_SECONDS)
    assert protocol._is_late(now + uvicorn_protocol.ANSWER_SECONDS + 0.1)
    transport.buffered = 0  # by now the rest is read
    assert not protocol._is_late(now + uvicorn_protocol.ANSWER_SECONDS + 0.1)


async def test_those_that_wait_for_their_clients_make_room(opened, monkeypatch):
    monkeypatch.setattr(uvicorn_protocol, "most_connections", lambda: 4)
    at_work, silent, sending, idle = (opened() for _ in range(4))
    for age, protocol in enumerate((idle, sending, silent)):
        protocol.conn.since -= 100 - age
    at_work.data_received(head(length=4) + b"full")
    sending.data_received(head(length=4) + b"ha")
    sending.conn.since -= 98.5  # longer than `silent`
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
    rarely = uvicorn_protocol.Rarely()

    def passes(text: str, seconds: float) -> bool:
        record = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, text, (), None)
        record.created = seconds
        return rarely.filter(record)

    full = "socket.accept() out of system resource\nsocket: <socket.socket>"
    assert [passes(full, 100 + seconds) for seconds in (0, 1, 59, 60, 61)] == [True, False, False, True, False]
    assert all(passes("Task was destroyed but it is pending!", 100) for _ in range(3))


def test_there_are_fewer_connections_than_descriptors():
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 0 < uvicorn_protocol.most_connections() < descriptors
