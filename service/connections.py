"""Connections over which no request comes: uvicorn would wait for one forever, and each takes a descriptor.

Without a token, a thousand of them would be enough to keep everybody else out, probes included: 1024 descriptors are
what many systems give a process that does not ask for more.
"""

from __future__ import annotations

import asyncio
import resource

import h11
from uvicorn import config
from uvicorn.protocols.http.h11_impl import H11Protocol

# A connection is ended that for this long, or up to twice as long, has been waiting for the head of a request.
HEAD_SECONDS = 10.0


class ImpatientProtocol(H11Protocol):
    """HTTP over one connection, ended when no request comes. Bodies have a limit of their own."""

    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:  # the processes of one service keep their connections to each other
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._look = self.loop.call_later(HEAD_SECONDS, self._end_if_still, self.cycle)

    def _end_if_still(self, last: object) -> None:
        """End the connection if it waits for a request, and has had none since `last` was its latest."""
        waits = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        if waits and self.cycle is last:
            self.transport.abort()
        else:
            self._look_again()


def limit() -> None:
    """To be called before uvicorn starts, in every process that it starts in."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{ImpatientProtocol.__name__}"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
