"""Calls that may succeed later are repeated: exponential backoff with jitter, and never before the server asked for.

No call changes anything in the server, so that repeating one is always safe, whatever became of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from service.client.calls import CallError

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How often a call is tried, and how long the waits between are, in seconds."""

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait(self, failed: int, retry_after: float, chance: float) -> float:
        """Return the seconds to wait after the `failed`-th attempt in a row; `chance` is from [0, 1]."""
        return retry_after + chance * min(self.longest_wait, self.first_wait * 2.0 ** (failed - 1))

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        deadline: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> T:
        """Return what `attempt` returns, repeated while its errors are temporary. Raises its last error."""
        failed = 0
        while True:
            try:
                return await attempt()
            except CallError as error:
                failed += 1
                wait = self.wait(failed, error.retry_after, random.random())
                late = asyncio.get_running_loop().time() + wait > deadline
                if not error.is_temporary or failed >= self.attempts or late:
                    raise
                logger.info("attempt %d of %d failed, next in %.1f s: %s", failed, self.attempts, wait, error)
            await sleep(wait)


def seconds_of(retry_after: str | None) -> float:
    """Return a Retry-After header, seconds or a date (RFC 9110, 10.2.3), as seconds; 0 where it says nothing."""
    if not retry_after:
        return 0.0
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
