"""HTTP/1.1 requests as llhttp reads them, less every form that another server might read differently.

`service.hosting.uvicorn_protocol` answers 400 to what is refused here.
"""

from __future__ import annotations

import re
import time
from enum import Enum, auto
from itertools import chain
from typing import Any, NoReturn

import httptools

from service.hosting.private_names import private_names, require, require_in_code

with private_names(__name__):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    require(HttpToolsProtocol, "data_received", "on_body", "on_header", "on_headers_complete", "on_message_begin")
    require(HttpToolsProtocol, "on_message_complete", "on_response_complete", "_unset_keepalive_if_required")
    require(HttpToolsProtocol, "_start_asgi_task")
    require_in_code(HttpToolsProtocol.__init__, "headers", "parser", "pipeline", "transport")
    require_in_code(HttpToolsProtocol.on_message_begin, "expect_100_continue", "url")
    require_in_code(RequestResponseCycle.__init__, "more_body", "response_complete")

# Bytes of a head, or of what stands between two parts of a body, at most.
MOST_HEAD_BYTES = 16 * 1024
# The parser gets this much at a time, and no more while a request waits behind another: a read has up to 256 KiB, which
# may be 10,000 requests of 2 kB of objects each.
PIECE_BYTES = 16 * 1024
# Even the smallest chunk of a body costs as much time as a kilobyte. FREE_CHUNKS chunks may be of any length. If there
# are more, their mean length must be MEAN_CHUNK_BYTES or more.
FREE_CHUNKS, MEAN_CHUNK_BYTES = 1000, 256

# The begin of HTTP/2 without TLS (RFC 9113, section 3.4).
HTTP2_PREFACE = b"PRI * HTTP/2"
# The begin of a TLS connection: a record of the handshake, of any version.
TLS_HANDSHAKE = b"\x16\x03"
TLS = "The client speaks TLS, as for https://. This port speaks HTTP without TLS: call http://."
HTTP2 = "The client speaks HTTP/2, as gRPC does. This port speaks HTTP/1.1; gRPC has another port."
# A target in absolute form, which a server must accept (RFC 9112, section 3.2.2).
ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
ORIGIN = re.compile(rb"\norigin:[ \t]*([!-~]{1,200})[ \t]*\r?\n", re.IGNORECASE)
NOT_VALID = "The request is not valid HTTP/1.1"
LONGEST_REASON = 100


class ClientState(Enum):
    """What a client does, or the service for it."""

    HEAD = auto()  # it sends a head, or is silent
    BODY = auto()
    WAITS = auto()  # for its answer


class RefusedRequest(Exception):
    """A request is refused. The text says why."""


class StrictConnection(HttpToolsProtocol):
    """The server's side of an HTTP/1.1 connection. It refuses ambiguous requests (RFC 9112, sections 5.2, 6.1, 6.3).

    If a proxy and this server disagree where a request ends, a client can hide a second request in the first one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = time.monotonic()  # when the state last changed
        self._running: RequestResponseCycle | None = None  # the request that the application works on
        self._refusal = ""  # after which nobody knows where the next request begins
        self._rest = b""  # behind a request that waits for the answer to another
        self._head = b""  # of the request, as far as it has come
        self._in_head, self._is_read_again = True, False
        self._unparsed_bytes = 0  # of what has come since the last part of a head or a body
        self._chunks = self._chunk_bytes = 0

    @property
    def state(self) -> ClientState:
        if self._running is None or self._running.response_complete:
            return ClientState.HEAD
        return ClientState.BODY if self._running.more_body else ClientState.WAITS

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._rest = self._rest + data if self._rest else data
        self._read_on()
        if self._rest:
            self.flow.pause_reading()

    def _read_on(self) -> None:
        """Read what has come, until a request has to wait for the answer to another."""
        data, start = self._rest, 0
        while start < len(data) and not self.pipeline and not self._refusal:
            start += self._read(data[start : start + PIECE_BYTES])
        self._rest = b"" if self._refusal else data[start:]

    def _read(self, data: bytes) -> int:
        """Have the parser read a piece. Return how many bytes it has read."""
        if self._in_head:
            self._head = self._head + data if self._head else data
        self._unparsed_bytes += len(data)
        try:
            self.parser.feed_data(data)
            if self._unparsed_bytes > MOST_HEAD_BYTES:
                self._refuse_long_head()
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade()
            return int(upgrade.args[0])
        except (httptools.HttpParserError, RefusedRequest) as error:
            self.logger.warning("Invalid HTTP request received.")
            self._end_with(self._refusal or self._explain(error))
        return len(data)

    def _end_with(self, refusal: str) -> None:
        """Refuse the request that is read, once those before it are answered."""
        self._refusal = refusal
        if self.state is not ClientState.WAITS:
            self.send_400_response(refusal)
        elif not self._in_head:
            self.pipeline.popleft()

    def _go_on_without_upgrade(self) -> None:
        """Read the body of a request that offers another protocol, as Java's client does, which nobody takes.

        llhttp leaves that body to the protocol. So another parser reads it, behind a head that has its length.
        """
        framing = (b"content-length", b"transfer-encoding", b"host")
        lines = [name + b": " + value for name, value in self.headers if name in framing]
        self.parser, self._is_read_again = httptools.HttpRequestParser(self), True
        self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""]))

    def _explain(self, error: Exception) -> str:
        if self._head.startswith(TLS_HANDSHAKE):
            return TLS
        if self._head.startswith(HTTP2_PREFACE):
            return HTTP2
        return f"{NOT_VALID}: {str(error)[:LONGEST_REASON]}."

    def send_400_response(self, msg: str) -> None:
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """Return the origin of the page that sent the request, "" where none is named."""
        match = ORIGIN.search(self._head)
        named = match[1] if match else dict(self.headers or ()).get(b"origin", b"")
        return named.decode("latin-1")

    def on_message_begin(self) -> None:
        if self._is_read_again:
            return
        super().on_message_begin()
        self._in_head, self._chunks, self._chunk_bytes = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what comes behind a body is left out
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_read_again:
            self._is_read_again = False
            return
        if len(self.url) + sum(map(len, chain.from_iterable(self.headers))) + 4 * len(self.headers) > MOST_HEAD_BYTES:
            self._refuse_long_head()  # all of it came in one or two pieces
        self._check_framing()
        self.url = _in_origin_form(self.url)
        super().on_headers_complete()
        self._in_head, self._head, self._unparsed_bytes, self.since = False, b"", 0, time.monotonic()

    def on_chunk_header(self) -> None:
        """Count the chunks of a body, and refuse a body of very many small ones."""
        self._chunks += 1
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < (self._chunks - 1) * MEAN_CHUNK_BYTES:
            self._refuse(f"The body comes in {self._chunks} chunks of fewer than {MEAN_CHUNK_BYTES} bytes on average.")

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self._chunk_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # its body comes now
        self._in_head, self._unparsed_bytes, self.since = True, 0, time.monotonic()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.since = time.monotonic()
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal and self.state is ClientState.HEAD:
            self.send_400_response(self._refusal)
        elif self._rest:
            self.data_received(b"")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _check_framing(self) -> None:
        """Refuse a request whose headers do not say clearly where it goes, or where its body ends.

        llhttp has refused most of these already.
        """
        names, version = [name for name, _ in self.headers], self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refuse(f"The request is of HTTP/{version}. This port speaks HTTP/1.1.")
        if names.count(b"host") > 1 or (version == "1.1" and b"host" not in names):
            self._refuse("The request has no Host, or several.")
        if version == "1.0":
            self.expect_100_continue = False  # HTTP/1.0 does not know it: 100 Continue would be read as the answer
        if b"transfer-encoding" in names:
            if version == "1.0":
                self._refuse("The request has Transfer-Encoding, which HTTP/1.0 does not know.")
            if [value.lower() for name, value in self.headers if name == b"transfer-encoding"] != [b"chunked"]:
                self._refuse("The request has a Transfer-Encoding other than chunked.")

    def _refuse_long_head(self) -> NoReturn:
        self._refuse(f"A head, or what stands between parts of a body, has at most {MOST_HEAD_BYTES} bytes.")

    def _refuse(self, reason: str) -> NoReturn:
        self._refusal = reason
        raise RefusedRequest(reason)


def _in_origin_form(target: bytes) -> bytes:
    """Return a target that begins with a path, also where it came with scheme and host in front of that."""
    if target.startswith(b"/"):
        return target
    if (match := ABSOLUTE.match(target)) is None:
        return b"/" + target
    rest = target[match.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
