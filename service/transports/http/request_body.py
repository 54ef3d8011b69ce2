"""Request bodies: read within their limits of bytes and time. Work stops when the client has left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from io import BytesIO
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.errors import TooSlow, UnsupportedMediaType
from service.transports.admission import Ticket
from service.transports.error_replies import check_length
from service.transports.time_limits import TimeLimit, timer

T = TypeVar("T")
# Whoever leaves sooner is noticed then: most requests have been answered by that time, and need no watch.
WATCH_AFTER_SECONDS = 0.25


async def read_body(request: Request, max_bytes: int, seconds: float, ticket: Ticket) -> bytes:
    """Return the whole body.

    Raises TooLarge as soon as the header, or what has come, exceeds `max_bytes`, Overloaded where it has no room, and
    TooSlow where it has not come in `seconds`.
    """
    coding = request.headers.get("content-encoding", "")
    if any(word.strip().lower() not in ("", "identity") for word in coding.split(",")):
        raise UnsupportedMediaType(f"Content-Encoding is {coding}.", "Send the body uncompressed, or as a zip.")
    announced = request.headers.get("content-length", "0")
    announced_bytes = int(announced) if announced.isdecimal() else 0
    check_length(announced_bytes, max_bytes)
    ticket.expect(announced_bytes)
    body, length, is_whole = BytesIO(), 0, False  # it grows in place, and hands over what it holds without a copy
    try:
        with TimeLimit(seconds):
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk, is_whole = message.get("body", b""), not message.get("more_body", False)
                check_length(length := length + len(chunk), max_bytes)
                ticket.take_bytes(len(chunk))
                if is_whole and len(chunk) == length:
                    return bytes(chunk)  # it came in one piece
                body.write(chunk)
    except TimeoutError:
        raise TooSlow(
            f"Of the body, {length} bytes have come in {seconds:g} s, and not all.", "Send it faster, or in parts."
        ) from None
    return body.getvalue()


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns. The body has been read. Raises ClientDisconnect, and ends the work, if the client
    leaves.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "this runs in a task"
    watching: list[asyncio.Task[None]] = []
    has_left = False

    async def end_when_gone() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = task.cancel()

    call = timer.call_later(WATCH_AFTER_SECONDS, lambda: watching.append(loop.create_task(end_when_gone())))
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and not task.uncancel():  # not if somebody else has cancelled it as well
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel(call)
        for watch in watching:
            watch.cancel()
