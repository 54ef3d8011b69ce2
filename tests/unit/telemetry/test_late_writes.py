"""Metrics that are written later have the values that they would have had at once."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.telemetry import late_writes
from service.telemetry.late_writes import LateWrites

AMOUNTS = [0.0, 0.1, 0.1000001, 0.5, 1.0, 7.0, float("inf")]


def samples(registry):
    return {
        (sample.name, *sample.labels.items()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def histogram():
    registry = CollectorRegistry()
    return registry, Histogram("seconds", "Seconds.", buckets=(0.1, 0.5, 1.0), registry=registry)


async def test_observations_land_in_the_buckets_that_observe_would_choose():
    (at_once, first), (later, second), writes = histogram(), histogram(), LateWrites()
    for amount in AMOUNTS:
        first.observe(amount)
        writes.observe(second, amount)
    assert samples(later) != samples(at_once)
    writes.write()
    assert samples(later) == samples(at_once)
    writes.write()
    assert samples(later) == samples(at_once)


async def test_counts_add_up_and_the_last_value_of_a_gauge_stays(monkeypatch):
    monkeypatch.setattr(late_writes, "FLUSH_SECONDS", 0.01)
    registry, writes = CollectorRegistry(), LateWrites()
    counter, gauge = Counter("calls", "Calls.", registry=registry), Gauge("rows", "Rows.", registry=registry)
    for value in (3, 1, 2):
        writes.inc(counter)
        writes.set(gauge, value)
    assert registry.get_sample_value("calls_total") == 0
    while not registry.get_sample_value("calls_total"):
        await asyncio.sleep(0.005)
    assert (registry.get_sample_value("calls_total"), registry.get_sample_value("rows")) == (3, 2)
    writes.inc(counter)
    while registry.get_sample_value("calls_total") < 4:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("loops", [0, 2])
def test_without_a_loop_or_after_one_that_has_ended_nothing_is_lost(loops):
    registry, writes = CollectorRegistry(), LateWrites()
    counter = Counter("calls", "Calls.", registry=registry)

    async def count():
        writes.inc(counter)

    for _ in range(loops):
        asyncio.run(count())
    writes.inc(counter)
    assert registry.get_sample_value("calls_total") == loops + 1


@pytest.fixture
def often():
    """Threads take turns very often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("often")
async def test_nothing_is_lost_where_threads_count_beside_the_loop():
    (registry, seconds), writes = histogram(), LateWrites()
    counter = Counter("calls", "Calls.", registry=registry)

    def count():
        for _ in range(2000):
            writes.observe(seconds, 0.5)
            writes.inc(counter)

    with ThreadPoolExecutor(2) as pool:
        threads = [asyncio.get_running_loop().run_in_executor(pool, count) for _ in range(2)]
        for _ in range(20):
            count_here = [writes.inc(counter) for _ in range(100)]
            writes.write()
            await asyncio.sleep(0)
        await asyncio.gather(*threads)
    writes.write()
    assert registry.get_sample_value("calls_total") == 4000 + 20 * len(count_here)
    assert registry.get_sample_value("seconds_count") == 4000
