"""Prometheus metrics of one of several bundles: those of every bundle but the default have the label `bundle`.

The default bundle's metrics look the same however many bundles are served. The service names every bundle, at most
`service.settings.MOST_BUNDLES` of them, so the label has few values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

LABEL = "bundle"


@dataclass(frozen=True)
class Labelled:
    """A metric whose last label is the bundle's name. It is used as one without that label."""

    metric: Any
    name: str

    def labels(self, *values: str) -> Any:
        return self.metric.labels(*values, self.name)

    def inc(self, amount: float = 1) -> None:
        self.labels().inc(amount)

    def set(self, value: float) -> None:
        self.labels().set(value)

    def observe(self, value: float) -> None:
        self.labels().observe(value)


class MetricMaker:
    """Makes the metrics of one bundle."""

    def __init__(self, name: str, registry: CollectorRegistry | None = None) -> None:
        """Make metrics of the bundle `name`, "" for the default one, in `registry`: by default the process's own.

        The registry of the process takes a name once. Further bundles' metrics are in registries of their own: what is
        scraped are the files that all metrics of a name are written to.
        """
        from prometheus_client import REGISTRY, CollectorRegistry

        self._name = name
        self._registry = registry or (CollectorRegistry() if name else REGISTRY)

    def counter(self, name: str, text: str, labels: Sequence[str] = (), **more: Any) -> Any:
        from prometheus_client import Counter

        return self._make(Counter, name, text, labels, more)

    def gauge(self, name: str, text: str, labels: Sequence[str] = (), **more: Any) -> Any:
        from prometheus_client import Gauge

        return self._make(Gauge, name, text, labels, more)

    def histogram(self, name: str, text: str, labels: Sequence[str] = (), **more: Any) -> Any:
        from prometheus_client import Histogram

        return self._make(Histogram, name, text, labels, more)

    def _make(self, kind: Any, name: str, text: str, labels: Sequence[str], more: dict[str, Any]) -> Any:
        if not self._name:
            return kind(name, text, labels, registry=self._registry, **more)
        return Labelled(kind(name, text, (*labels, LABEL), registry=self._registry, **more), self._name)
