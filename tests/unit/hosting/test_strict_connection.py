"""Requests that another server would read differently are refused, however the network cuts them."""

import h11
import pytest

from service.hosting import strict_connection
from service.hosting.strict_connection import StrictConnection

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
    read(chunked(b"x", strict_connection.FREE_CHUNKS))
    read(chunked(b"x" * strict_connection.MEAN_CHUNK_BYTES, 3 * strict_connection.FREE_CHUNKS))
    with pytest.raises(h11.RemoteProtocolError, match="chunks of fewer than"):
        read(chunked(b"x", strict_connection.FREE_CHUNKS + 1))


def test_http2_is_refused_by_its_name():
    connection = StrictConnection()
    connection.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
    assert connection.refusal.startswith("The client speaks HTTP/2, as gRPC does.")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://x/score?a=http://y", b"/score?a=http://y"),
        (b"HTTPS://x:80/score", b"/score"),
        (b"http://x", b"/"),
        (b"http://x?a=1", b"/?a=1"),
        (b"/http://x/score", b"/http://x/score"),
        (b"*", b"*"),
    ],
)
def test_a_target_in_absolute_form_is_its_path(target, expected):
    request, _ = read(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nX-Y: 1\r\n\r\n")
    assert (request.target, request.method, dict(request.headers)[b"x-y"]) == (expected, b"GET", b"1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "speaks TLS"),
        (b"GET /a b HTTP/1.1\r\n\r\n", "illegal request line"),
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", "Content-Length"),
        (CHUNKED + b"zz\r\n", "chunk"),
    ],
)
def test_a_refusal_says_what_is_wrong(content, reason):
    connection = StrictConnection()
    connection.receive_data(content)
    if content.startswith(CHUNKED):
        connection.next_event()
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
    assert reason in connection.refusal


def test_the_origin_of_a_refused_request_is_known():
    connection = StrictConnection()
    assert connection.origin == ""
    connection.receive_data(b"GET /a b HTTP/1.1\r\nHost: x\r\nORIGIN:  https://app.example.com \r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
    assert connection.origin == "https://app.example.com"


@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_head_of_an_answer_is_sent_with_the_first_of_its_body(content):
    connection = StrictConnection()
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
        pass
    length = str(len(content)).encode()
    head = connection.send(h11.Response(status_code=200, headers=[(b"content-length", length)]))
    sent = [head, connection.send(h11.Data(data=content)), connection.send(h11.EndOfMessage())]
    assert sent[0] == b""
    assert b"".join(sent) == b"HTTP/1.1 200 \r\ncontent-length: " + length + b"\r\n\r\n" + content
    assert sum(map(bool, sent)) == 1
