"""A collector of traces for tests: takes OTLP over HTTP on a port of 127.0.0.1, and keeps every span."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WAIT_SECONDS = 30


@dataclass(frozen=True)
class Collected:
    """A span, and the name of the process that made it."""

    process: str
    span: Span

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, object]:
        return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in self.span.attributes}


@dataclass
class Collector:
    endpoint: str = ""
    spans: list[Collected] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def add(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [Collected(names["service.name"], span) for span in scope.spans]

    def trace(self, trace_id: str, until: Callable[[list[Collected]], bool]) -> list[Collected]:
        """The spans of a trace, once `until` is true of them. Raises TimeoutError with what has come."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not until(spans := [each for each in self.spans if each.span.trace_id.hex() == trace_id]):
            if time.monotonic() > deadline:
                names = [(each.process, each.span.name) for each in spans]
                raise TimeoutError(f"of trace {trace_id} there are only {names}")
            time.sleep(0.05)
        return spans


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
