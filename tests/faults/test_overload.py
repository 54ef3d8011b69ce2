"""More than the service can do: it does as much as ever, and turns the rest away at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import aiohttp
import bodies
import grpc
import httpx
import load
import numpy as np
import pytest
from serving import Served, serve

TIMES_CAPACITY, OVERLOAD_SECONDS, PEAK_SECONDS = 5, 60, 30
CLIENTS = 5  # in the peaks: of these there is room for all, whatever they send
LEAST_GOODPUT = 0.9
REFUSED_WITHIN_MS = 50
# Few enough that a slow machine fills it within seconds, and that what is admitted is answered soon after.
ROWS_IN_FLIGHT = 2000
LIMITS = {"MISFIT_MAX_IMAGES": str(ROWS_IN_FLIGHT), "MISFIT_MAX_ROWS_IN_FLIGHT": str(ROWS_IN_FLIGHT)}
REFUSED = (429, "RESOURCE_EXHAUSTED")
HUGE, WAIT_SECONDS = 10_000, 600


async def measure(served: Served, frames: np.ndarray) -> tuple[list[float], list[load.Outcome]]:
    """The peak before and after an overload, images a second, and what became of the overload's requests."""
    options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    limits = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=load.PATIENCE_SECONDS)
    async with (
        aiohttp.ClientSession(connector=limits, timeout=timeout) as session,
        grpc.aio.insecure_channel(served.grpc_target, options) as channel,
    ):
        sender = load.Sender(session, channel, served.url, frames)
        await load.peak(sender, CLIENTS, PEAK_SECONDS / 4)  # everything is warm
        unloaded = await load.peak(sender, CLIENTS, PEAK_SECONDS)
        before = load.goodput(unloaded)
        outcomes = await load.offered(sender, TIMES_CAPACITY * before, OVERLOAD_SECONDS)
        unloaded += (again := await load.peak(sender, CLIENTS, PEAK_SECONDS))
    assert {each.result for each in unloaded} == {"ok"}
    return [before, load.goodput(again)], outcomes


def seconds_of_refusals(log: Path) -> list[float]:
    """How long the service itself took for each, by its log: without the clients, who share its cores."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line["seconds"] for line in lines if line.get("status") in REFUSED]


def test_five_times_the_capacity(tmp_path, images, report):
    with serve(tmp_path / "log", {**LIMITS, "MISFIT_LOG_FORMAT": "json"}) as served:
        peaks, outcomes = asyncio.run(measure(served, images))
        assert (served.in_flight("rows"), served.in_flight("bytes")) == (0, 0)
    by_itself = seconds_of_refusals(tmp_path / "log")
    good, refused = ([each for each in outcomes if each.result == result] for result in ("ok", "refused"))
    small = [each for each in good if each.images == load.SMALL]
    goodput = load.goodput(outcomes)
    held = (
        f"{goodput:.0f} images/s answered of {TIMES_CAPACITY * peaks[0]:.0f} offered, "
        f"{goodput / np.mean(peaks):.2f} of the peak ({peaks[0]:.0f} before, {peaks[1]:.0f} after); refused in "
        f"{load.milliseconds(refused, 0.5):.0f} ms (p95 {load.milliseconds(refused, 0.95):.0f}, "
        f"p99 {load.milliseconds(refused, 0.99):.0f}), by the service's own log p99 "
        f"{1000 * np.quantile(by_itself, 0.99):.0f} ms; answered in {load.milliseconds(good, 0.5) / 1000:.1f} s "
        f"(p99 {load.milliseconds(good, 0.99) / 1000:.1f}), small ones in {load.milliseconds(small, 0.5) / 1000:.1f} s"
    )
    print(held)
    assert Counter(each.result for each in outcomes).keys() == {"ok", "refused"}  # no 5xx, nothing lost
    assert all(each.retry_after for each in refused)
    assert goodput >= LEAST_GOODPUT * np.mean(peaks)
    assert load.milliseconds(refused, 0.95) < REFUSED_WITHIN_MS
    assert len(by_itself) == len(refused)
    assert 1000 * np.quantile(by_itself, 0.99) < REFUSED_WITHIN_MS
    report(
        fault=f"{TIMES_CAPACITY} times the capacity for {OVERLOAD_SECONDS} s",
        held=held,
        answered=len(good),
        refused=len(refused),
    )


@pytest.fixture
def huge(images) -> bodies.Body:
    return bodies.as_npy(np.resize(images, (HUGE, *images.shape[1:])))


def test_small_requests_beside_one_of_10_000_images(tmp_path, images, huge, report):
    """They overtake it, and it goes on."""
    small = bodies.as_npy(images[: load.SMALL])
    with (
        serve(tmp_path / "log") as served,
        httpx.Client(base_url=served.url, timeout=WAIT_SECONDS) as client,
        ThreadPoolExecutor(1) as pool,
    ):

        def post(body: bodies.Body) -> float:
            answer = client.post("/score", content=body[1], headers={"Content-Type": body[0]})
            assert answer.status_code == 200, answer.text
            return answer.elapsed.total_seconds()

        alone = [post(small) for _ in range(10)]
        under_way = pool.submit(post, huge)
        while served.in_flight() < HUGE and not under_way.done():
            pass
        beside = []
        while not under_way.done():
            beside.append(post(small))
        seconds = under_way.result()
    assert len(beside) > 10
    assert median(beside) < seconds / 20
    report(
        fault=f"one request of {HUGE} images",
        held=f"answered in {seconds:.1f} s; {load.SMALL} images took {1000 * median(beside):.0f} ms beside it "
        f"(at most {1000 * max(beside):.0f}), {1000 * median(alone):.0f} ms alone",
        answered=len(beside) + 1,
    )
