"""OpenTelemetry traces: one for each request, through the stages of the API, and on to the networks' own process.

MISFIT_TRACING turns them on. BentoML makes the spans of its HTTP servers, and passes a trace on from the API to
Inference. `service.telemetry.spans` makes the others. The standard OTEL_ variables set the destination and the
sampling.
"""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from service.telemetry import spans

ASGI = "opentelemetry.instrumentation.asgi"
# Probes and scrapes come every few seconds, and no request waits for them.
NOT_TRACED = ("livez", "readyz", "healthz", "metrics", "v2/health/")


class Spans(BatchSpanProcessor):
    """Exports every span except those of single ASGI messages, as a large body has thousands of messages."""

    def on_end(self, span: ReadableSpan) -> None:
        scope = span.instrumentation_scope
        if scope is None or scope.name != ASGI or span.kind is not SpanKind.INTERNAL:
            super().on_end(span)


class Unlinked:
    """An ASGI application that begins every request outside of all traces, so that only its headers name its trace.

    A server handles the next request of a connection in the context of the previous request. Without this, the next
    request would continue the previous trace.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = context.attach(context.Context())
        try:
            await self._app(scope, receive, send)
        finally:
            context.detach(token)


def start(process: str) -> TracerProvider:
    """Start the export of this process's spans by OTLP over HTTP. `process` is the name of the service in them."""
    # Not at the top: every start would take a tenth of a second longer.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    defaults = Resource.create({"service.name": process, "service.namespace": "misfit"})
    provider = TracerProvider(resource=defaults.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(Spans(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    spans.export_to(provider)
    return provider
