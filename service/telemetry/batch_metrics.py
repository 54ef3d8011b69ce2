"""The Prometheus metrics of the networks: the waits of rows, and the adaptive batches that merge them.

Where the networks have a process of their own, BentoML collects them from its files, so that GET /metrics has them as
well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.bundle.store import Bundle
from service.inference.adaptive_batches import BatchHooks
from service.telemetry.bundle_label import MetricMaker
from service.telemetry.metrics import STAGE_SECONDS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FILL = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


class BatchMetrics(BatchHooks):
    """The metrics of the networks. The process that runs them makes one object for each bundle."""

    def __init__(self, registry: CollectorRegistry | None = None, name: str = "") -> None:
        """Make the metrics of a bundle's networks. `name` is the bundle's, "" for the default one."""
        make = MetricMaker(name, registry)
        self._rows, self._fill, self._seconds, self._queue_age = (
            make.histogram(f"misfit_{name}", text, ("network",), buckets=buckets)
            for name, text, buckets in (
                ("adaptive_batch_rows", "Rows of an adaptive batch, of all requests merged in it.", BATCH_ROWS),
                ("adaptive_batch_fill", "Share of the rows computed for it that are not padding.", FILL),
                ("adaptive_batch_seconds", "Seconds that a network took for an adaptive batch.", STAGE_SECONDS),
                ("queue_age_seconds", "Seconds that rows waited until their adaptive batch began.", STAGE_SECONDS),
            )
        )
        self._info = make.gauge(
            "misfit_info",
            "1, with what runs: the bundle, its model, and ONNX Runtime's execution provider.",
            ("bundle_id", "model", "provider"),
            multiprocess_mode="livemax",
        )

    def report_bundle(self, bundle: Bundle, provider: str) -> None:
        """Report the bundle, its model, and the execution provider of ONNX Runtime."""
        self._info.labels(bundle.manifest.bundle_id, bundle.manifest.model, provider).set(1)

    @contextmanager
    def adaptive_batch(self, network: str, rows: int, computed: int) -> Iterator[None]:
        """Measure the block, which runs `network` on `rows` rows; `computed` rows with padding."""
        started = time.perf_counter()
        yield
        self._seconds.labels(network).observe(time.perf_counter() - started)
        self._rows.labels(network).observe(rows)
        self._fill.labels(network).observe(rows / computed)

    def observe_wait(self, network: str, seconds: float) -> None:
        """Report that a job waited for `seconds` until its adaptive batch began."""
        self._queue_age.labels(network).observe(seconds)
