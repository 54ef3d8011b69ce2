"""Requests that another server would read differently are refused, however the network cuts them."""

import asyncio

import pytest
from connections import Transport
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.hosting import strict_connection
from service.hosting.strict_connection import StrictConnection

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# Each is a request that some servers end elsewhere than others, or do not read at all.
AMBIGUOUS = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "both, by other names": b"POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: CHUNKED\r\nCONTENT-LENGTH: 0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "one length twice": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "bare line feeds": b"POST / HTTP/1.1\nHost: x\nContent-Length: 4\n\n\n \n ",
    "another coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another version": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a path that is no ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
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


class Refused(Exception):
    """The text says why."""


class Reader(StrictConnection):
    """A connection without an application: it keeps the requests that it reads, each as a scope with its body."""

    def __init__(self):
        super().__init__(Config(None, log_config=None, lifespan="off"), ServerState(), {}, asyncio.get_running_loop())
        self.connection_made(Transport())
        self.read = []

    def send_400_response(self, msg):
        raise Refused(msg)

    def _start_asgi_task(self, cycle, app):
        self._running = cycle
        self.read.append(cycle)


def read(*pieces: bytes) -> list[RequestResponseCycle]:
    """Return the requests that the pieces lead to, one after the other."""

    async def run():
        connection = Reader()
        for piece in pieces:
            connection.data_received(piece)
        return connection.read

    return asyncio.run(run())


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_ambiguous_requests_are_refused_however_they_are_cut(name, step):
    request = AMBIGUOUS[name]
    with pytest.raises(Refused):
        read(*(request[start : start + step] for start in range(0, len(request), step)))


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na\r\n b\r\n c",  # a body may look like a fold
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n \t\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_plain_requests_are_read_however_they_are_cut(request_, step):
    (cycle,) = read(*(request_[start : start + step] for start in range(0, len(request_), step)))
    assert not cycle.more_body
    assert not {b"trailer", b"authorization"}.intersection(dict(cycle.scope["headers"]))


def chunked(chunk: bytes, count: int) -> bytes:
    return CHUNKED + count * (f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")


def test_a_body_of_tiny_chunks_is_refused():
    read(chunked(b"x", strict_connection.FREE_CHUNKS))
    read(chunked(b"x" * strict_connection.MEAN_CHUNK_BYTES, 3 * strict_connection.FREE_CHUNKS))
    with pytest.raises(Refused, match="chunks of fewer than"):
        read(chunked(b"x", strict_connection.FREE_CHUNKS + 1))


@pytest.mark.parametrize("step", [1, 1000])
def test_http2_is_refused_by_its_name(step):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with pytest.raises(Refused, match="The client speaks HTTP/2, as gRPC does"):
        read(*(preface[start : start + step] for start in range(0, len(preface), step)))


@pytest.mark.parametrize("step", [100, 5000])
@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + 40_000 * b"a",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + 40_000 * b"a",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + 5_000 * b"X: a\r\n",
        CHUNKED + b"1;" + 40_000 * b"a",
        CHUNKED + b"0\r\nX: " + 40_000 * b"a",
    ],
)
def test_a_head_or_a_trailer_that_does_not_end_is_refused(request_, step):
    with pytest.raises(Refused, match="at most 16384 bytes"):
        read(*(request_[start : start + step] for start in range(0, len(request_), step)))


@pytest.mark.parametrize("step", [100, 1_000_000])
def test_a_long_head_is_refused_although_it_ends(step):
    def request(length):
        return b"GET / HTTP/1.1\r\nHost: x\r\nX: " + length * b"a" + b"\r\n\r\n"

    read(*cut(request(16_000), step))
    with pytest.raises(Refused, match="at most 16384 bytes"):
        read(*cut(request(16_500), step))


def cut(content: bytes, step: int) -> list[bytes]:
    return [content[start : start + step] for start in range(0, len(content), step)]


def test_a_protocol_that_is_offered_is_not_taken_and_the_connection_goes_on():
    upgrade = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nfull"
    for pieces in ((upgrade,), (upgrade[:-6], upgrade[-6:-2], upgrade[-2:]), tuple(bytes([byte]) for byte in upgrade)):
        (cycle,) = read(*pieces)
        assert (cycle.body, cycle.more_body) == (b"full", False)
        assert dict(cycle.scope["headers"])[b"upgrade"] == b"h2c"
    (cycle,) = read(upgrade.replace(b"POST", b"GET").replace(b"Content-Length: 4\r\n", b"").removesuffix(b"full"))
    assert (cycle.body, cycle.more_body) == (b"", False)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://x/score?a=http://y", b"/score?a=http://y"),
        (b"HTTPS://x:80/score", b"/score"),
        (b"http://x", b"/"),
        (b"http://x?a=1", b"/?a=1"),
        (b"/http://x/score", b"/http://x/score"),
        (b"*", b"/*"),
    ],
)
def test_a_target_in_absolute_form_is_its_path(target, expected):
    (cycle,) = read(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nX-Y: 1\r\n\r\n")
    path, _, query = expected.partition(b"?")
    assert (cycle.scope["raw_path"], cycle.scope["query_string"], cycle.scope["method"]) == (path, query, "GET")
    assert dict(cycle.scope["headers"])[b"x-y"] == b"1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "speaks TLS"),
        (b"GET /a b HTTP/1.1\r\n\r\n", "not valid HTTP/1.1: Expected HTTP"),
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", "Content-Length"),
        (CHUNKED + b"zz\r\n", "chunk"),
    ],
)
def test_a_refusal_says_what_is_wrong(content, reason):
    with pytest.raises(Refused, match=reason):
        read(content)


@pytest.mark.parametrize(("version", "expected"), [("1.0", False), ("1.1", True)])
def test_leave_to_go_on_is_given_to_those_who_know_it(version, expected):
    head = f"POST / HTTP/{version}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    (cycle,) = read(head.encode())
    assert cycle.waiting_for_100_continue == expected


async def test_the_origin_of_a_refused_request_is_known():
    connection = Reader()
    assert connection.origin == ""
    with pytest.raises(Refused):
        connection.data_received(b"GET /a b HTTP/1.1\r\nHost: x\r\nORIGIN:  https://app.example.com \r\n\r\n")
    assert connection.origin == "https://app.example.com"
    connection = Reader()
    head = CHUNKED.replace(b"Host", b"Origin: https://app.example.com\r\nHost")
    with pytest.raises(Refused):
        connection.data_received(head + b"zz\r\n")
    assert connection.origin == "https://app.example.com"
