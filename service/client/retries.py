"""Retries of calls that may succeed later: exponential backoff with jitter, never earlier than the server asked for.

No call changes anything in the server. So a call can always be repeated, even if its result is unknown.
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
    """How often a call is attempted, and how many seconds pass between attempts."""

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait(self, failed: int, retry_after: float, chance: float) -> float:
        """Return the seconds to wait after `failed` failed attempts. `chance` is a random number from [0, 1]."""
        return retry_after + chance * min(self.longest_wait, self.first_wait * 2.0 ** (failed - 1))

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        deadline: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> T:
        """Call `attempt` until it succeeds, and return its result. Raises its last error.

        It is not called again after an error that is not temporary, after `attempts` calls, or if the next call would
        be later than `deadline`, a time of the event loop.
        """
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


def parse_retry_after(retry_after: str | None) -> float:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3); 0 if it gives none."""
    if not retry_after:
        return 0.0
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
