"""How much may be worked on at a time: more is turned away at once, before it takes memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded


class Admission:
    """Counts the rows and body bytes of all requests under way, for one event loop."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._limits = {"images": max_rows, "bytes": max_bytes}
        self.in_flight = {"images": 0, "bytes": 0}

    @contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """What is taken on the ticket is given back when the request ends, in whatever way it ends."""
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            for unit, amount in ticket.taken.items():
                self.in_flight[unit] -= amount

    def take(self, unit: str, amount: int) -> None:
        """Raises Overloaded where there is no room for `amount` more."""
        if self.in_flight[unit] + amount > self._limits[unit]:
            raise Overloaded(
                f"{self.in_flight[unit]} {unit} are being worked on, and this request adds {amount}; "
                f"at most {self._limits[unit]} are taken at a time.",
                "Send it again a little later.",
            )
        self.in_flight[unit] += amount


class Ticket:
    """One request's share."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.taken = {"images": 0, "bytes": 0}

    def take_images(self, amount: int) -> None:
        self._take("images", amount)

    def take_bytes(self, amount: int) -> None:
        self._take("bytes", amount)

    def _take(self, unit: str, amount: int) -> None:
        self._admission.take(unit, amount)
        self.taken[unit] += amount
