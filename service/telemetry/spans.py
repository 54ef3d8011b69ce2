"""Spans of our own: of gRPC's calls, and of the stages in a request. Only `service.telemetry.tracing` has them
exported.

No span holds what a client sent: neither images nor ids, nor the text of an error, which may quote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

_tracer = trace.get_tracer("misfit")


@contextmanager
def span(name: str) -> Iterator[None]:
    """A span around what happens inside."""
    with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as current:
        try:
            yield
        except Exception as error:
            set_failed(current, type(error).__name__)
            raise


@contextmanager
def grpc_span(service: str, method: str, metadata: Mapping[str, str | bytes]) -> Iterator[Span]:
    """The span of a call on our gRPC server, in the trace that its `metadata` name, if they do."""
    parent = propagate.extract({name: value for name, value in metadata.items() if isinstance(value, str)})
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    with _tracer.start_as_current_span(
        f"{service}/{method}",
        parent,
        SpanKind.SERVER,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        yield current


def set_failed(span: Span, code: str) -> None:
    """The span ends in an error of our own making."""
    span.set_status(Status(StatusCode.ERROR, code))


def trace_id() -> str | None:
    """Of the trace that is being exported, if one is: for the log."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid and context.trace_flags.sampled else None
