"""How long rows wait in BentoML's queues."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from service.telemetry.batch_metrics import batch_metrics


def watch_queues(dispatchers: dict[str, Any]) -> None:
    """Have `dispatchers`, BentoML's queues by network, tell how long what they send on has waited.

    A job that is split between two batches counts in each.
    """
    for network, dispatcher in dispatchers.items():
        dispatcher.outbound_call = partial(_send_on, network, dispatcher.outbound_call)


async def _send_on(
    network: str, outbound_call: Callable[..., Awaitable[None]], jobs: Sequence[Any], training: bool = False
) -> None:
    now = time.time()  # the clock that `enqueue_time` is of
    for job in jobs:
        batch_metrics().waited(network, max(now - job.enqueue_time, 0.0))
    await outbound_call(jobs, training=training)
