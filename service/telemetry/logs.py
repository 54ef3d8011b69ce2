"""The log: one line for each request. Every other record has the id of the request that it belongs to.

The log holds only two things that a client sends: its request id and the path. It holds no images, names of images,
options or tokens, and only the code of an error, since the text of an error may quote the request.
"""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Literal, Self

from service.telemetry import spans

Format = Literal["plain", "json"]
PACKAGE = "service"

logger = logging.getLogger(f"{PACKAGE}.access")


@dataclass
class Call:
    """A request as the log describes it. `status` is a number of HTTP or a name of gRPC.

    As a context manager it makes a block the request, and logs it at the block's end. Records of the block's task, and
    of tasks that it starts, get the request's id.
    """

    request_id: str
    method: str
    route: str
    client: str
    status: str | int = "unanswered"
    images: int = 0
    error: str | None = None

    def __enter__(self) -> Self:
        self._started, self._token = time.perf_counter(), _call.set(self)
        return self

    def __exit__(self, *failure: object) -> None:
        seconds = time.perf_counter() - self._started
        record = {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
        record["seconds"] = round(seconds, 6)
        text = "%s %s %s, %d images, %.3f s"
        logger.info(text, self.method, self.route, self.status, self.images, seconds, extra=record)
        _call.reset(self._token)


FIELDS = tuple(field.name for field in fields(Call))
_call: ContextVar[Call | None] = ContextVar("call", default=None)


def add_images(count: int) -> None:
    """Add `count` images to the call under way."""
    if (current := _call.get()) is not None:
        current.images += count


def record_error(code: str) -> None:
    """Record that the call under way ends in an error with the code `code`."""
    if (current := _call.get()) is not None:
        current.error = code


def configure(style: Format, process: str) -> None:
    """Make every logger of this process write to standard output in `style`. `process` is its name in the log."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_add_ids)
    handler.setFormatter(_make_plain_formatter(process) if style == "plain" else _make_json_formatter(process))
    # What no formatter of ours shows is not looked up for every record.
    vars(logging).update(logThreads=False, logProcesses=False, logMultiprocessing=False, _srcfile=None)
    root = logging.getLogger()
    root.handlers = [handler]
    for name in ("bentoml", "uvicorn.error", "circus"):  # BentoML gives them handlers of their own
        library_logger = logging.getLogger(name)
        library_logger.handlers, library_logger.propagate = [], True
    logging.getLogger(PACKAGE).setLevel(logging.INFO)


def _add_ids(record: logging.LogRecord) -> bool:
    """Add the request id and the trace id to a record, as far as there are any. Keep every record."""
    current = _call.get()
    values = {"request_id": None if current is None else current.request_id, "trace_id": spans.trace_id()}
    ids = {name: value for name, value in values.items() if value is not None}
    vars(record).update(ids, ids="".join(f" {name}={value}" for name, value in ids.items()))
    return True


def _make_plain_formatter(process: str) -> logging.Formatter:
    return logging.Formatter(f"%(asctime)s [%(levelname)s] [{process}] %(message)s%(ids)s", "%Y-%m-%dT%H:%M:%S%z")


def _make_json_formatter(process: str) -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["timestamp", "levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        static_fields={"process": process},
        reserved_attrs=[*vars(logging.makeLogRecord({})), "ids", "taskName", "color_message", "message", "asctime"],
        timestamp="timestamp",
        json_ensure_ascii=True,
    )
