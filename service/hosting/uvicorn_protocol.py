"""HTTP connections with bounds: on heads and bodies that trickle, answers nobody reads, and their number.

uvicorn bounds none of these. Without a token, a thousand such connections would keep everybody else out, probes
included: many systems give a process 1,024 descriptors unless it asks for more.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import resource
import struct
import termios
import time
from contextlib import suppress
from functools import cache
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.schemas import ErrorDetail, ErrorResponse
from service.api.wire import REQUEST_ID
from service.errors import InvalidInput
from service.hosting.private_names import private_names, require, require_in_code
from service.hosting.strict_connection import StrictConnection
from service.settings import Settings
from service.transports.error_replies import request_id_of

with private_names(__name__):
    from asyncio import constants

    from uvicorn import config
    from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

    require(constants, "SSL_HANDSHAKE_TIMEOUT", "ACCEPT_RETRY_DELAY")
    require(config, "HTTP_PROTOCOLS", "WS_PROTOCOLS")
    require(H11Protocol, "connection_made", "data_received", "send_400_response", "shutdown")
    require(H11Protocol, "timeout_keep_alive_handler")
    require_in_code(H11Protocol.__init__, "app", "client", "conn", "connections", "cycle", "flow", "loop", "transport")
    require_in_code(RequestResponseCycle.__init__, "disconnected", "message_event", "response_complete")

# A connection that waits for the head of a request, or for a TLS handshake, is ended after so many seconds.
HEAD_SECONDS = 10.0
# A body gets MISFIT_BODY_SECONDS, and so much more for the 408 of an application that reads it.
BODY_GRACE_SECONDS = 5.0
# A client has to read so many bytes of an answer, or what is left of it, in so many seconds: 8.7 kB a second.
ANSWER_SECONDS, ANSWER_BYTES = 30.0, 256 * 1024
# Every connection is looked at this often: its end comes so much later than its bound at most.
LOOK_SECONDS = 5.0
# After an answer to part of a request, so much of the rest is read, for so long, before the connection is closed.
LINGER_SECONDS, LINGER_BYTES = 2.0, 256 * 1024
# The share of the process's descriptors that HTTP's connections may take; gRPC's share is in
# `service.transports.grpc.server`.
DESCRIPTOR_SHARE = 0.6
# Where one burst of connections takes all descriptors nevertheless, room is made by then (asyncio would wait a second).
ACCEPT_AGAIN_SECONDS = 0.05
# asyncio logs a trace each time: one is enough for so long.
SAME_LINE_SECONDS = 60.0
# When they are taken, this share of the connections makes room at once: finding them goes through all.
MAKE_ROOM_SHARE = 1 / 16

CLOSE = (b"connection", b"close")


class BoundedProtocol(H11Protocol):
    """HTTP over one connection, which ends when its client is late, or when others need its descriptor.

    Connections between the processes of the service, over a Unix socket, have no bounds.
    """

    conn: StrictConnection
    connections: set[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = StrictConnection()
        self._application: ASGIApp = self.app
        self.app = self._answer
        self._timer: asyncio.TimerHandle | None = None
        self._unread, self._moved = 0, time.monotonic()
        self._refused, self._dropped = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)
            if len(self.connections) > most_connections():
                self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.flow.pause_reading()
        else:
            super().data_received(data)

    def timeout_keep_alive_handler(self) -> None:
        if not self._refused:  # then the connection ends soon, and h11 would not let it end as an idle one
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._refused:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer 400 in the service's words, and end the connection: nobody knows where its next request begins."""
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application is to stop, and to send nothing
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(self._refusal())
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        else:  # in the middle of an answer
            self.transport.abort()

    def _refusal(self) -> bytes:
        """Return an answer of status 400. It bypasses h11, which has given up on the connection."""
        number = request_id_of("")
        error = ErrorDetail(code=InvalidInput.code, message=self.conn.refusal, hint="Send HTTP/1.1 as RFC 9112 has it.")
        body = ErrorResponse(error=error, request_id=number).model_dump_json()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{REQUEST_ID}: {number}\r\n"
        return f"HTTP/1.1 400 Bad Request\r\n{head}connection: close\r\n\r\n{body}".encode()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; after an answer to part of a request, say so, linger, and close."""
        is_early = is_finished = False

        async def send_and_hold_the_end(message: Message) -> None:
            nonlocal is_early, is_finished
            if message["type"] == "http.response.start":
                if is_early := self.conn.their_state is h11.SEND_BODY:
                    message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
            elif is_early and not message.get("more_body", False):
                is_finished, message = True, {**message, "more_body": True}
            await send(message)

        await self._application(scope, receive, send_and_hold_the_end)
        if is_finished:
            await self._linger(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self, receive: Receive) -> None:
        """Give the client time to see the answer: had the connection been closed, its data would be met by a reset."""
        length = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while length <= LINGER_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message["more_body"]:
                        return
                    length += len(message["body"])
                self.flow.pause_reading()
                await asyncio.sleep(LINGER_SECONDS)

    def _look(self) -> None:
        """End the connection if its client is late, else look again later: also while it is being closed."""
        if self._is_late(time.monotonic()):
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

    def _is_late(self, now: float) -> bool:
        state, seconds = self.conn.their_state, now - self.conn.since
        if state is h11.IDLE and seconds > HEAD_SECONDS:
            return True
        # Where reading is paused, it is the application that does not read.
        if state is h11.SEND_BODY and seconds > _body_seconds() + BODY_GRACE_SECONDS and not self.flow.read_paused:
            return True
        unread = self._unread_bytes()
        # More of an answer is only written once most of the last part is gone: that it grows is progress as well.
        if unread == 0 or abs(unread - self._unread) >= ANSWER_BYTES:
            self._unread, self._moved = unread, now
        return now - self._moved > ANSWER_SECONDS

    def _unread_bytes(self) -> int:
        """Return how many bytes of answers the client has not acknowledged; 0 once the system has taken all of them.

        Without what the system holds, a slow client would seem to stand still: it takes more only by the megabyte.
        """
        if not (buffered := self.transport.get_write_buffer_size()):
            return 0
        with suppress(OSError):
            descriptor = self.transport.get_extra_info("socket").fileno()
            (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, struct.pack("i", 0)))
            return int(buffered + queued)
        return buffered

    def _make_room(self) -> None:
        """End the connections that have kept the service waiting longest; this one, if all others are being served."""
        since = {each: moment for each in self.connections if (moment := each.waits_since()) is not None}
        since.pop(self, None)
        oldest = sorted(since, key=since.__getitem__)[: 1 + int(len(since) * MAKE_ROOM_SHARE)]
        for each in oldest or [self]:
            each.transport.abort()

    def waits_since(self) -> float | None:
        """Return since when the connection waits for its client; None while the service works on a request."""
        if self.client is None:
            return None
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR) or self._refused:
            return self.conn.since
        return max(self._moved, self.conn.since) if self.transport.get_write_buffer_size() else None


class Rarely(logging.Filter):
    """Lets asyncio's line that no connection can be accepted through once in SAME_LINE_SECONDS."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -SAME_LINE_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        if "socket.accept() out of system resource" not in record.getMessage():
            return True
        if record.created < self._last + SAME_LINE_SECONDS:
            return False
        self._last = record.created
        return True


def most_connections() -> int:
    """Return how many connections may be open at a time, at least 1."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(int(descriptors * DESCRIPTOR_SHARE), 1)


@cache
def _body_seconds() -> float:
    return Settings().body_seconds


def limit() -> None:
    """Bound the connections of every uvicorn that starts in this process afterwards, and raise its descriptor limit."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"
    config.WS_PROTOCOLS["auto"] = None  # a connection that becomes a WebSocket would have no bounds
    vars(constants).update(SSL_HANDSHAKE_TIMEOUT=HEAD_SECONDS, ACCEPT_RETRY_DELAY=ACCEPT_AGAIN_SECONDS)
    logging.getLogger("asyncio").addFilter(Rarely())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
