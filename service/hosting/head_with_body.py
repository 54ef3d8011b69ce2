"""The head of an HTTP answer, written together with the first part of its body."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class HeadWithBody:
    """The transport of one answer that has a body, if only an empty one. It holds the head back until the body begins.

    So a short answer takes one system call, and one packet, instead of two.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport, self._cycle, self._head, self._has_begun = transport, cycle, b"", False

    def write(self, data: bytes) -> None:
        if self._cycle.response_started and not self._has_begun:  # what comes before is no answer: 100 Continue
            self._has_begun, self._head = True, data
        else:
            self._transport.write(self._head + data if self._head else data)
            self._head = b""

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
