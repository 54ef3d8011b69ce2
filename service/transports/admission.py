"""Admission: how many rows and bytes may be in flight. What exceeds them is refused before it takes memory.

Bytes are those of a body while it comes, and then also those of the work and its answer
(`service.transports.memory_footprint`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from service.errors import Overloaded, TooLarge

# At most this share of all images is reserved for a request like the last one that found no room.
MAX_RESERVED_SHARE = 0.25
# Room is reserved so long for a request that is being read. So a slow sender does not keep others out.
READING_SECONDS = 1.0
# Room is reserved for requests until none has been refused for so long.
OVERLOAD_SECONDS = 1.0


class Admission:
    """Counts the rows and bytes of all requests under way, for one event loop."""

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty count. `clock` returns seconds."""
        self._limits = {"images": max_rows, "bytes": max_bytes}
        self._clock = clock
        self._refused_images = 0  # images of the last request that found no room, while the service is overloaded
        self._overloaded_until = 0.0
        self._reserved: dict[Ticket, tuple[int, float]] = {}  # images of requests that are being read, and until when
        self.in_flight = {"images": 0, "bytes": 0}

    def ticket(self) -> Ticket:
        """Return a ticket. Everything taken on it is given back when its block ends, also after an error."""
        return Ticket(self)

    def end(self, ticket: Ticket) -> None:
        """Give back everything that was taken on a ticket."""
        self._reserved.pop(ticket, None)
        for unit, amount in ticket.taken.items():
            self.in_flight[unit] -= amount

    def check(self, announced_bytes: int = 0) -> None:
        """Raise Overloaded if a request that is not read yet would most likely find no room.

        The number of a request's images is known only after it is read. Reading a request in vain takes time from the
        requests in flight. So after a request is refused, later requests are not read until they would find room. That
        ends when there is room for two of it, and no request has been refused for OVERLOAD_SECONDS.
        """
        self._check("bytes", self.in_flight["bytes"], announced_bytes)
        if not self._refused_images:
            return
        now = self._clock()
        taken = self.in_flight["images"] + sum(images for images, until in self._reserved.values() if until > now)
        if taken + self._refused_images > self._limits["images"]:
            self._overloaded_until = now + OVERLOAD_SECONDS
            self._check("images", taken, self._refused_images)
        elif now > self._overloaded_until and taken + 2 * self._refused_images <= self._limits["images"]:
            self._refused_images = 0

    def expect(self, ticket: Ticket, announced_bytes: int) -> None:
        """Check as `check` does, then reserve the room until the request is read."""
        self.check(announced_bytes)
        if self._refused_images:
            self._reserved[ticket] = (self._refused_images, self._clock() + READING_SECONDS)

    def take(self, ticket: Ticket, unit: str, amount: int) -> None:
        """Count `amount` more of `unit`. Raises Overloaded if there is no room."""
        if unit == "images":
            self._reserved.pop(ticket, None)
            if self.in_flight[unit] + amount > self._limits[unit]:
                self._refused_images = min(amount, int(MAX_RESERVED_SHARE * self._limits[unit]))
                self._overloaded_until = self._clock() + OVERLOAD_SECONDS
        self._check(unit, self.in_flight[unit], amount)
        self.in_flight[unit] += amount

    def take_work(self, ticket: Ticket, amount: int) -> None:
        """Count the bytes of a request's work. Raises TooLarge if no request may take so many, else as `take` does."""
        taken, limit = ticket.taken["bytes"], self._limits["bytes"]
        if taken + amount > limit:
            raise TooLarge(
                f"The request would take about {amount} bytes beside its body of {taken}; "
                f"all requests together have {limit}.",
                "Send fewer images at a time, with a context so that they are still compared with the same, or ask for "
                "less about each.",
            )
        self.take(ticket, "bytes", amount)

    def give_back(self, ticket: Ticket, unit: str, amount: int) -> None:
        self.in_flight[unit] -= amount
        ticket.taken[unit] -= amount

    def _check(self, unit: str, in_flight: int, amount: int) -> None:
        if in_flight + amount > self._limits[unit]:
            raise Overloaded(
                f"{in_flight} {unit} are being worked on, and there is no room for {amount} more; "
                f"at most {self._limits[unit]} are taken at a time.",
                "Send it again a little later.",
            )


class Ticket:
    """The share of one request in what is in flight: its block is the time of the request."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.taken = {"images": 0, "bytes": 0}
        self._work = 0  # of these bytes, those that are not a body's

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._admission.end(self)

    def expect(self, announced_bytes: int) -> None:
        """Reserve room before the body is read. `announced_bytes` is its length, or 0 if that is not known."""
        self._admission.expect(self, announced_bytes)

    def take_images(self, amount: int) -> None:
        self._take("images", amount)

    def take_bytes(self, amount: int) -> None:
        self._take("bytes", amount)

    def take_work(self, amount: int) -> None:
        """Take the bytes that the work and its answer need. Raises TooLarge if no request may take so many."""
        self._admission.take_work(self, amount)
        self.taken["bytes"] += amount
        self._work += amount

    def keep(self, amount: int) -> None:
        """Give back all images, and all bytes except `amount`, which the answer takes until it is sent."""
        self._admission.give_back(self, "images", self.taken["images"])
        self._admission.give_back(self, "bytes", max(self.taken["bytes"] - amount, 0))

    def widen(self, images: int, bytes: int) -> None:
        """Make room for a chunk of a stream. One chunk of a stream is in flight at a time.

        The room stays taken for later chunks. So a stream that has begun is refused only if its chunks grow.
        """
        for unit, amount in {"images": images, "bytes": bytes + self._work}.items():
            self._take(unit, max(amount - self.taken[unit], 0))

    def _take(self, unit: str, amount: int) -> None:
        self._admission.take(self, unit, amount)
        self.taken[unit] += amount
