"""Metrics of further bundles have the label `bundle`, those of the default one have not."""

from prometheus_client import CollectorRegistry

from service.telemetry.bundle_label import MetricMaker
from service.telemetry.metrics import Metrics


def test_a_name_is_a_label_of_every_kind_of_metric():
    registry = CollectorRegistry()
    make = MetricMaker("mine", registry)
    make.counter("a", "text").inc(2)
    make.counter("b", "text", ("code",)).labels("x").inc()
    make.gauge("c", "text").set(3)
    make.histogram("d", "text").observe(4)
    bundle = {"bundle": "mine"}
    assert registry.get_sample_value("a_total", bundle) == 2
    assert registry.get_sample_value("b_total", {"code": "x", **bundle}) == 1
    assert registry.get_sample_value("c", bundle) == 3
    assert registry.get_sample_value("d_sum", bundle) == 4


def test_without_a_name_there_is_no_label():
    registry = CollectorRegistry()
    MetricMaker("", registry).counter("a", "text").inc()
    assert registry.get_sample_value("a_total", {}) == 1


def test_further_metrics_are_made_beside_those_of_the_process(served_bundle):
    registry = CollectorRegistry()
    Metrics(served_bundle, registry)
    further = Metrics(served_bundle, name="mine")  # in a registry of its own: no name is taken twice
    Metrics(served_bundle, name="other")
    further.count_grpc_call("Score", "OK", 0.1)
    assert registry.get_sample_value("misfit_grpc_calls_total", {"method": "Score", "code": "OK"}) is None
