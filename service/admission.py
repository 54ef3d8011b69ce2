"""How much may be worked on at a time: more is turned away at once, before it takes memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from service.errors import Overloaded


class Admission:
    """Counts the rows and body bytes of all requests under way, for one event loop."""

    def __init__(
        self, max_rows: int, max_bytes: int, observe: Callable[[Mapping[str, int]], None] = lambda in_flight: None
    ) -> None:
        """`observe` is told what is in flight whenever that changes."""
        self._limits = {"images": max_rows, "bytes": max_bytes}
        self._observe = observe
        self.in_flight = {"images": 0, "bytes": 0}
        observe(self.in_flight)

    @contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """What is taken on the ticket is given back when the request ends, in whatever way it ends."""
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            for unit, amount in ticket.taken.items():
                self.in_flight[unit] -= amount
            self._observe(self.in_flight)

    def take(self, unit: str, amount: int) -> None:
        """Raises Overloaded where there is no room for `amount` more."""
        if self.in_flight[unit] + amount > self._limits[unit]:
            raise Overloaded(
                f"{self.in_flight[unit]} {unit} are being worked on, and this request adds {amount}; "
                f"at most {self._limits[unit]} are taken at a time.",
                "Send it again a little later.",
            )
        self.in_flight[unit] += amount
        self._observe(self.in_flight)


class Ticket:
    """One request's share."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.taken = {"images": 0, "bytes": 0}

    def take_images(self, amount: int) -> None:
        self._take("images", amount)

    def take_bytes(self, amount: int) -> None:
        self._take("bytes", amount)

    def widen(self, images: int, bytes: int) -> None:
        """Have room for a chunk of that size, as one of a stream's chunks is in flight at a time.

        The room is kept for the chunks to come: a stream that has begun is turned away only if its chunks grow.
        """
        for unit, amount in {"images": images, "bytes": bytes}.items():
            self._take(unit, max(amount - self.taken[unit], 0))

    def _take(self, unit: str, amount: int) -> None:
        self._admission.take(unit, amount)
        self.taken[unit] += amount
