"""What Prometheus is told, at GET /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Made once in each worker: not before, since BentoML only then says where its workers put their counts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = registry or REGISTRY
        self._in_flight = {
            unit: Gauge(name, text, multiprocess_mode="livesum", registry=registry)
            for unit, name, text in (
                ("images", "misfit_rows_in_flight", "Images being worked on in all requests."),
                ("bytes", "misfit_bytes_in_flight", "Bytes of all bodies and messages being worked on."),
            )
        }
        self._grpc_calls = Counter(
            "misfit_grpc_calls", "gRPC calls that have ended.", ("method", "code"), registry=registry
        )
        self._grpc_seconds = Histogram(
            "misfit_grpc_call_seconds",
            "Seconds from a gRPC call's arrival to its end.",
            ("method",),
            buckets=CALL_SECONDS,
            registry=registry,
        )

    def in_flight(self, amounts: Mapping[str, int]) -> None:
        for unit, amount in amounts.items():
            self._in_flight[unit].set(amount)

    def grpc_call(self, method: str, code: str, seconds: float) -> None:
        self._grpc_calls.labels(method, code).inc()
        self._grpc_seconds.labels(method).observe(seconds)
