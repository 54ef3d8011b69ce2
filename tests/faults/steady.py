"""Clients that go on while something happens: each call is repeated until it is answered, and checked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from service.api.schemas import ScoreResponse
from service.client.calls import CallError
from service.client.client import AsyncClient
from service.client.retries import Retries

# A pod takes a while to come back: the clients wait for it.
PATIENT = Retries(attempts=1000, longest_wait=2.0)
CALL_SECONDS = 240
WAIT_SECONDS = 240


class Clients:
    """One client for each URL, scoring the same images over and over."""

    def __init__(self, urls: Sequence[str], images: NDArray[np.uint8]) -> None:
        self._urls, self._images = urls, images
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._expected: ScoreResponse | None = None
        self.answered = [0] * len(urls)
        self.failures: list[str] = []  # calls that ended without an answer, or with another one than before

    def start(self) -> None:
        self._thread.start()
        self.wait_for_more()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        """Until each client has had two more answers: the second is to a call that was made after this one."""
        before, deadline = list(self.answered), time.monotonic() + WAIT_SECONDS
        while any(now < then + 2 for now, then in zip(self.answered, before, strict=True)):
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, f"{self.answered} answers, {before} before"
            time.sleep(0.1)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, url in enumerate(self._urls):
                group.create_task(self._client(number, url))

    async def _client(self, number: int, url: str) -> None:
        async with AsyncClient(url, timeout=CALL_SECONDS, retries=PATIENT) as client:
            while not self._stopping.is_set():
                try:
                    answer = await client.score(self._images)
                except CallError as error:
                    self.failures.append(f"{url}: {error}")
                    continue
                self._expected = self._expected or answer
                if answer != self._expected:
                    self.failures.append(f"{url}: another answer")
                self.answered[number] += 1


@contextmanager
def clients(urls: Sequence[str], images: NDArray[np.uint8]) -> Iterator[Clients]:
    steady = Clients(urls, images)
    steady.start()
    try:
        yield steady
    finally:
        steady.stop()
