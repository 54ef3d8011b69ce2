"""Bounds on uvicorn's HTTP connections: the time for heads, bodies and answers, and the number of connections.

uvicorn bounds none of these. Many systems give a process 1,024 descriptors unless it asks for more. So a client without
a token could keep out everybody else, probes included, with a thousand slow connections.
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
from functools import cache, partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.schemas import ErrorDetail, ErrorResponse
from service.api.wire import REQUEST_ID
from service.errors import InvalidInput
from service.hosting.head_with_body import HeadWithBody
from service.hosting.private_names import private_names, require, require_in_code
from service.hosting.strict_connection import ClientState, StrictConnection
from service.settings import Settings
from service.transports.error_replies import request_id_of
from service.transports.http.cors import build_refusal_headers

with private_names(__name__):
    from asyncio import constants

    from uvicorn import config
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    require(constants, "SSL_HANDSHAKE_TIMEOUT", "ACCEPT_RETRY_DELAY")
    require(config, "HTTP_PROTOCOLS", "WS_PROTOCOLS")
    require(HttpToolsProtocol, "connection_made", "send_400_response", "shutdown", "_start_asgi_task")
    require(HttpToolsProtocol, "timeout_keep_alive_handler")
    require_in_code(HttpToolsProtocol.__init__, "client", "connections", "flow", "loop", "transport")
    require_in_code(RequestResponseCycle.__init__, "disconnected", "message_event", "response_started", "transport")
    require_in_code(RequestResponseCycle.__init__, "chunked_encoding", "expected_content_length", "keep_alive")

# Seconds that a client may take for the head of a request, or for a TLS handshake.
HEAD_SECONDS = 10.0
# A body may take MISFIT_BODY_SECONDS. An application that reads it then answers 408, within this many seconds.
BODY_GRACE_SECONDS = 5.0
# A client has to read ANSWER_BYTES of an answer, or all the rest of it, in ANSWER_SECONDS: 8.7 kB a second.
ANSWER_SECONDS, ANSWER_BYTES = 30.0, 256 * 1024
# Seconds between two checks of a connection. A connection lives at most this much longer than its bound.
CHECK_SECONDS = 5.0
# After an answer to a part of a request, the server reads at most LINGER_BYTES of the rest, for LINGER_SECONDS. Then it
# closes the connection.
LINGER_SECONDS, LINGER_BYTES = 2.0, 256 * 1024
# The share of the process's descriptors that HTTP's connections may take; gRPC's share is in
# `service.transports.grpc.server`.
DESCRIPTOR_SHARE = 0.6
# If one burst of connections takes all descriptors, the server accepts again after this many seconds. asyncio would
# wait a second.
ACCEPT_AGAIN_SECONDS = 0.05
# asyncio logs a trace whenever it cannot accept a connection. One trace in this many seconds is enough.
SAME_LINE_SECONDS = 60.0
# If there are too many connections, end this share of them at once: finding the oldest takes time, as it goes through
# all of them.
MAKE_ROOM_SHARE = 1 / 16

CLOSE = (b"connection", b"close")


class BoundedProtocol(StrictConnection):
    """One HTTP connection. It ends if its client is late, or if others need its descriptor.

    Connections over a Unix socket have no bounds: they are between the processes of the service.
    """

    connections: set[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._unread, self._progress_at = 0, time.monotonic()
        self._is_refused, self._dropped_bytes = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self._timer = self.loop.call_later(CHECK_SECONDS, self._end_if_late)
            if len(self.connections) > get_max_connections():
                self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect_application()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES:
                self.flow.pause_reading()
        else:
            super().data_received(data)

    def timeout_keep_alive_handler(self) -> None:
        if not self._is_refused:  # otherwise the connection ends soon anyway
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._is_refused:
            self.transport.abort()
        else:
            if self._running is not None:
                self._running.keep_alive = False  # the requests behind it are not begun
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer 400 with the service's error body and the text `msg`, then end the connection.

        The connection cannot go on, since nobody knows where its next request begins.
        """
        self._is_refused = True
        if self._disconnect_application():
            self.transport.abort()
        else:
            self.transport.write(self._build_refusal(msg))
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _disconnect_application(self) -> bool:
        """Have the application stop. What it sends goes nowhere. Return whether it has begun to answer."""
        if self._running is None or self._running.response_complete:
            return False
        self._running.disconnected = True
        self._running.message_event.set()
        return self._running.response_started

    def _build_refusal(self, message: str) -> bytes:
        """Return an answer of status 400 as bytes."""
        request_id = request_id_of("")
        error = ErrorDetail(code=InvalidInput.code, message=message, hint="Send HTTP/1.1 as RFC 9112 has it.")
        body = ErrorResponse(error=error, request_id=request_id).model_dump_json().encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), REQUEST_ID: request_id}
        headers |= build_refusal_headers(self.origin, _read_origins())
        lines = [f"{name}: {value}" for name, value in (headers | {"connection": "close"}).items()]
        return "\r\n".join(["HTTP/1.1 400 Bad Request", *lines, "", ""]).encode() + body

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(self._run_application, cycle, app))

    async def _run_application(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run the application. The head of its answer is written together with the first part of the body.

        If it answers before the whole request has come, add `Connection: close` to the answer, and linger before the
        connection ends.
        """
        is_early = is_finished = ends_by_close = False
        if scope["method"] != "HEAD":
            vars(cycle)["transport"] = HeadWithBody(self.transport, cycle)

        async def send_and_hold_the_end(message: Message) -> None:
            nonlocal is_early, is_finished, ends_by_close
            if message["type"] == "http.response.start":
                if is_early := cycle.more_body:
                    message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
                if scope["http_version"] == "1.0" and b"content-length" not in dict(message.get("headers", ())):
                    ends_by_close, cycle.chunked_encoding = True, False  # HTTP/1.0 knows no chunks
            elif is_early and not message.get("more_body", False):
                is_finished, message = True, {**message, "more_body": True}
            if ends_by_close:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_and_hold_the_end)
        if is_finished:
            await self._linger(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self, receive: Receive) -> None:
        """Read what the client still sends, so that it has time to read the answer.

        If the server closed the connection at once, the system would answer the client's data by a reset, and the
        client might lose the answer.
        """
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

    def _end_if_late(self) -> None:
        """End the connection if its client is late, else check again later, even while the connection is closing."""
        if self._is_late(time.monotonic()):
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(CHECK_SECONDS, self._end_if_late)

    def _is_late(self, now: float) -> bool:
        """Return whether the client has used up its time for a head, a body, or reading an answer."""
        state, seconds = self.state, now - self.since
        if state is ClientState.HEAD and seconds > HEAD_SECONDS:
            return True
        # If reading is paused, the client is not to blame: the application does not read.
        late = seconds > _read_body_seconds() + BODY_GRACE_SECONDS
        if state is ClientState.BODY and late and not self.flow.read_paused:
            return True
        unread = self._count_unread_bytes()
        # uvicorn writes more of an answer once the client has taken most of the last part. So growth is progress too.
        if unread == 0 or abs(unread - self._unread) >= ANSWER_BYTES:
            self._unread, self._progress_at = unread, now
        return now - self._progress_at > ANSWER_SECONDS

    def _count_unread_bytes(self) -> int:
        """Return how many bytes of answers the client has not acknowledged; 0 once the system has taken all of them.

        The count includes the bytes in the system's buffer. The system takes more only by the megabyte, so that a slow
        client would otherwise seem to make no progress.
        """
        if not (buffered := self.transport.get_write_buffer_size()):
            return 0
        with suppress(OSError):
            descriptor = self.transport.get_extra_info("socket").fileno()
            (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, struct.pack("i", 0)))
            return int(buffered + queued)
        return buffered

    def _make_room(self) -> None:
        """End the connections that have waited longest for their clients.

        If the service works on requests of all other connections, end this one.
        """
        waiting_since = {
            connection: since for connection in self.connections if (since := connection.waits_since()) is not None
        }
        waiting_since.pop(self, None)
        count = 1 + int(len(waiting_since) * MAKE_ROOM_SHARE)
        oldest = sorted(waiting_since, key=waiting_since.__getitem__)[:count]
        for connection in oldest or [self]:
            connection.transport.abort()

    def waits_since(self) -> float | None:
        """Return since when the connection has waited for its client; None while the service works on a request."""
        if self.client is None:
            return None
        if self.state is not ClientState.WAITS or self._is_refused:
            return self.since
        return max(self._progress_at, self.since) if self.transport.get_write_buffer_size() else None


class RepeatFilter(logging.Filter):
    """Drops repetitions, within SAME_LINE_SECONDS, of asyncio's line that no connection can be accepted."""

    def __init__(self) -> None:
        super().__init__()
        self._last_logged = -SAME_LINE_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        if "socket.accept() out of system resource" not in record.getMessage():
            return True
        if record.created < self._last_logged + SAME_LINE_SECONDS:
            return False
        self._last_logged = record.created
        return True


def get_max_connections() -> int:
    """Return how many connections may be open at a time, at least 1."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(int(descriptors * DESCRIPTOR_SHARE), 1)


@cache
def _read_body_seconds() -> float:
    return Settings().body_seconds


@cache
def _read_origins() -> tuple[str, ...]:
    return Settings().cors_origins


def bound_connections() -> None:
    """Bound the connections of every uvicorn server that starts later in this process.

    Also raise the process's limit of descriptors as far as the system allows.
    """
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"
    config.WS_PROTOCOLS["auto"] = None  # a WebSocket connection would have no bounds
    vars(constants).update(SSL_HANDSHAKE_TIMEOUT=HEAD_SECONDS, ACCEPT_RETRY_DELAY=ACCEPT_AGAIN_SECONDS)
    logging.getLogger("asyncio").addFilter(RepeatFilter())
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
