"""A metric of BentoML's adaptive batching: how long rows wait in the queue of each network."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from service.hosting.private_names import private_names, require, require_in_code
from service.telemetry.batch_metrics import batch_metrics

with private_names(__name__):
    from bentoml._internal.marshal.dispatcher import CorkDispatcher, Job

    require(CorkDispatcher, "outbound_call")
    require_in_code(CorkDispatcher.outbound_call, "inputs_info", "training")
    require_in_code(CorkDispatcher.controller, "outbound_call")
    require(Job, "enqueue_time")


def measure_waits(dispatchers: dict[str, Any]) -> None:
    """Make each of BentoML's `dispatchers`, by network, report how long rows wait until it sends them on.

    A job that is split between two adaptive batches counts in each.
    """
    for network, dispatcher in dispatchers.items():
        dispatcher.outbound_call = partial(_send_on, network, dispatcher.outbound_call)


async def _send_on(
    network: str, outbound_call: Callable[..., Awaitable[None]], jobs: Sequence[Any], training: bool = False
) -> None:
    now = time.time()  # the clock of `enqueue_time`
    for job in jobs:
        batch_metrics().observe_wait(network, max(now - job.enqueue_time, 0.0))
    await outbound_call(jobs, training=training)
