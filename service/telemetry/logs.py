"""The log: one line for each request, and every other record with the id of the request that it belongs to.

Nothing that a client sends is logged but its request id and the path it asked for: no images, no names of images, no
options, no tokens, and of refusals only the error's code, since their texts quote what came.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from service.telemetry import spans

Format = Literal["plain", "json"]
PACKAGE = "service"

logger = logging.getLogger(f"{PACKAGE}.access")


@dataclass
class Call:
    """A request as the log will tell of it. `status` is HTTP's number or gRPC's name."""

    request_id: str
    method: str
    route: str
    client: str
    status: str | int = "unanswered"
    images: int = 0
    error: str | None = None


_call: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def call(request_id: str, method: str, route: str, client: str) -> Iterator[Call]:
    """What happens inside, in this task and those that it starts, belongs to the call; at its end it is logged."""
    current, started = Call(request_id, method, route, client), time.perf_counter()
    token = _call.set(current)
    try:
        yield current
    finally:
        seconds = time.perf_counter() - started
        told: dict[str, Any] = vars(current) | {"seconds": round(seconds, 6)}
        fields = {name: value for name, value in told.items() if value is not None}
        logger.info("%s %s %s, %d images, %.3f s", method, route, current.status, current.images, seconds, extra=fields)
        _call.reset(token)


def add_images(count: int) -> None:
    """The call under way has so many images more."""
    if (current := _call.get()) is not None:
        current.images += count


def failed(code: str) -> None:
    """The call under way ends in an error of that code."""
    if (current := _call.get()) is not None:
        current.error = code


def configure(style: Format, process: str) -> None:
    """Have every logger of this process, which is called `process`, write to standard output in `style`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_with_ids)
    handler.setFormatter(_plain(process) if style == "plain" else _json(process))
    root = logging.getLogger()
    root.handlers = [handler]
    for name in ("bentoml", "uvicorn.error", "circus"):  # BentoML gives them handlers of their own
        named = logging.getLogger(name)
        named.handlers, named.propagate = [], True
    logging.getLogger(PACKAGE).setLevel(logging.INFO)


def _with_ids(record: logging.LogRecord) -> bool:
    current = _call.get()
    found = {"request_id": None if current is None else current.request_id, "trace_id": spans.trace_id()}
    ids = {name: value for name, value in found.items() if value is not None}
    vars(record).update(ids, ids="".join(f" {name}={value}" for name, value in ids.items()))
    return True


def _plain(process: str) -> logging.Formatter:
    return logging.Formatter(f"%(asctime)s [%(levelname)s] [{process}] %(message)s%(ids)s", "%Y-%m-%dT%H:%M:%S%z")


def _json(process: str) -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter  # here, since clients import this module as well

    return JsonFormatter(
        ["timestamp", "levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        static_fields={"process": process},
        reserved_attrs=[*vars(logging.makeLogRecord({})), "ids", "taskName", "color_message", "message", "asctime"],
        timestamp="timestamp",
        json_ensure_ascii=True,
    )
