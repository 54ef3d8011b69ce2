"""HTTP/1.1 requests as h11 reads them, less every form that another server might read differently.

`service.hosting.uvicorn_protocol` answers 400 to what is refused here.
"""

from __future__ import annotations

import re
import time
from typing import Any

import h11

# Even the smallest chunk of a body costs as much time as a kilobyte. FREE_CHUNKS chunks may be of any length. If there
# are more, their mean length must be MEAN_CHUNK_BYTES or more.
FREE_CHUNKS, MEAN_CHUNK_BYTES = 1000, 256
# The end of a head, or a header that goes on in the next line (obs-fold), whichever comes first.
HEAD_END_OR_FOLD = re.compile(rb"\n(?:\r?\n|([ \t]))")

# The begin of HTTP/2 without TLS (RFC 9113, section 3.4). h11 would read a request of the method PRI.
HTTP2_PREFACE = b"PRI * HTTP/2"
# The begin of a TLS connection: a record of the handshake, of any version.
TLS_HANDSHAKE = b"\x16\x03"
# A target in absolute form, which a server must accept (RFC 9112, section 3.2.2).
ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
ORIGIN = re.compile(rb"\norigin:[ \t]*([!-~]{1,200})[ \t]*\r?\n", re.IGNORECASE)
NOT_VALID = "The request is not valid HTTP/1.1"
LONGEST_REASON = 100
# What h11 quotes of a request.
BYTES_QUOTED = re.compile(r"bytearray\(b(.*)\)")


class StrictConnection(h11.Connection):
    """The server's side of an HTTP/1.1 connection. It refuses ambiguous requests (RFC 9112, sections 5.2, 6.1, 6.3).

    If a proxy and this server disagree where a request ends, a client can hide a second request in the first one.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self.since = time.monotonic()  # when `their_state` last changed
        self.refusal = ""
        self._head = b""  # of the request, as far as it has come
        self._unsent: list[bytes] = []  # the head of an answer
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> Any:
        """Return the next event, as h11.Connection does.

        Raises h11.RemoteProtocolError for a refused request, with the reason in `refusal`.
        """
        if self.their_state is h11.IDLE:
            self._check_head()
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            reason = BYTES_QUOTED.sub(r"\1", str(error))[:LONGEST_REASON]
            self.refusal = self.refusal or f"{NOT_VALID}: {reason}."
            raise
        if isinstance(event, h11.Data):
            self._check_chunk(event)
        elif isinstance(event, h11.Request):
            self.since, self._chunks, self._chunk_bytes = time.monotonic(), 0, 0
            self._check_framing(event)
            event = _in_origin_form(event)
        elif isinstance(event, h11.EndOfMessage):
            self.since = time.monotonic()
        return event

    def send_with_data_passthrough(self, event: Any) -> list[bytes] | None:
        """Return the bytes of an event, as h11.Connection does; those of an answer's head come with its first part.

        So a short answer takes one system call, and one packet, instead of two.
        """
        parts = super().send_with_data_passthrough(event)
        if isinstance(event, h11.Response):
            self._unsent = parts or []
            return []
        if self._unsent:
            parts, self._unsent = [*self._unsent, *(parts or [])], []
        return parts

    @property
    def origin(self) -> str:
        """Return the origin of the page that sent the request, "" where none is named."""
        match = ORIGIN.search(self._head)
        return match[1].decode() if match else ""

    def start_next_cycle(self) -> None:
        """Wait for the next request, as h11.Connection does."""
        super().start_next_cycle()
        self.since = time.monotonic()

    def _check_head(self) -> None:
        """Refuse HTTP/2, and a header that is folded into several lines, which h11 would join."""
        received, _ = self.trailing_data
        self._head = received or self._head
        if received.startswith(TLS_HANDSHAKE):
            self._refuse("The client speaks TLS, as for https://. This port speaks HTTP without TLS: call http://.")
        if received.startswith(HTTP2_PREFACE):
            self._refuse("The client speaks HTTP/2, as gRPC does. This port speaks HTTP/1.1; gRPC has another port.")
        if (match := HEAD_END_OR_FOLD.search(received)) and match[1]:
            self._refuse("A header goes on in the next line.")

    def _check_framing(self, request: h11.Request) -> None:
        """Refuse a request whose headers do not say clearly where its body ends."""
        names = [name for name, _ in request.headers]
        if b"transfer-encoding" in names:
            if b"content-length" in names:
                self._refuse("The request has both Content-Length and Transfer-Encoding.")
            if request.http_version < b"1.1":
                self._refuse("The request has Transfer-Encoding, which HTTP/1.0 does not know.")

    def _check_chunk(self, data: h11.Data) -> None:
        """Count the chunks of a body, and refuse a body of very many small ones."""
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < self._chunks * MEAN_CHUNK_BYTES:
            self._refuse(f"The body comes in {self._chunks} chunks of fewer than {MEAN_CHUNK_BYTES} bytes on average.")

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        raise h11.RemoteProtocolError(reason)


def _in_origin_form(request: h11.Request) -> h11.Request:
    """Return a request whose target begins with a path, also where it came with scheme and host in front of that."""
    match = ABSOLUTE.match(request.target)
    if match is None:
        return request
    rest = request.target[match.end() :]
    target = rest if rest.startswith(b"/") else b"/" + rest
    return h11.Request(
        method=request.method, target=target, headers=list(request.headers), http_version=request.http_version
    )
