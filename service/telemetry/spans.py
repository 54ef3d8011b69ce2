"""The spans of gRPC calls and of the stages of a request. `service.telemetry.tracing` exports them.

No span holds anything that a client sent: no images, no ids, no text of an error, which may quote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

# `service.telemetry.tracing` sets it. Without it no span is made, not even one that nobody exports.
_tracer: trace.Tracer | None = None
NO_SPAN = nullcontext()


def export_to(provider: trace.TracerProvider) -> None:
    """Make the spans of this process from now on, and hand them to `provider`."""
    global _tracer
    _tracer = provider.get_tracer("misfit")


def span(name: str) -> AbstractContextManager[None]:
    """Make the block a span called `name`. An exception marks the span as failed, by its type alone."""
    return NO_SPAN if _tracer is None else _start_span(_tracer, name)


@contextmanager
def _start_span(tracer: trace.Tracer, name: str) -> Iterator[None]:
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as current:
        try:
            yield
        except Exception as error:
            set_failed(current, type(error).__name__)
            raise


@contextmanager
def grpc_span(service: str, method: str, metadata: Mapping[str, str | bytes]) -> Iterator[Span]:
    """Make the block the span of a gRPC call, in the trace that its `metadata` name, if they name one."""
    if _tracer is None:
        yield trace.INVALID_SPAN
        return
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
    """Mark the span as failed with the error `code`."""
    span.set_status(Status(StatusCode.ERROR, code))


def trace_id() -> str | None:
    """Return the id of the trace that is being exported; None if none is."""
    if _tracer is None:
        return None
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid and context.trace_flags.sampled else None
