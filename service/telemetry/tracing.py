"""Traces, by OpenTelemetry: one for each request, through the API's stages and over to the networks' process.

Off unless MISFIT_TRACING is set. BentoML makes the spans of its HTTP servers, and hands a trace on from the API to
Inference; those of gRPC and of the stages are in `service.telemetry.spans`. Where they go, and how many of them, the
standard OTEL_ variables say.
"""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

ASGI = "opentelemetry.instrumentation.asgi"
# Probes and scrapes come every few seconds, and no request waits for them.
NOT_TRACED = ("livez", "readyz", "healthz", "metrics")


class Spans(BatchSpanProcessor):
    """Exports all but those that BentoML's servers make of every single message: a large body has thousands."""

    def on_end(self, span: ReadableSpan) -> None:
        scope = span.instrumentation_scope
        if scope is None or scope.name != ASGI or span.kind is not SpanKind.INTERNAL:
            super().on_end(span)


class Unlinked:
    """ASGI application: every request begins outside of all traces, so that its headers alone say which it belongs to.

    A server takes up a connection's next request in the context of the one before, whose trace would go on in it.
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
    """Export from now on what this process, which is called `process`, does: by OTLP over HTTP."""
    defaults = Resource.create({"service.name": process, "service.namespace": "misfit"})
    provider = TracerProvider(resource=defaults.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(Spans(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider
