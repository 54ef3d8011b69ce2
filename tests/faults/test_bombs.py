"""Images made to take long to decode: what they cost, and what everybody else notices of them.

MISFIT_ATTACK_SECONDS is how long each attack is renewed (30 s; the table in README.md was made with 300).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import bodies
import httpx
import numpy as np
import psutil
import pytest
from bombs import BOMBS
from serving import ROOT, Served, serve

SECONDS = float(os.environ.get("MISFIT_ATTACK_SECONDS", "30"))
SEED = int(os.environ.get("MISFIT_ATTACK_SEED", "1"))
ATTACKERS, REST_SECONDS = 16, 0.05
CALL_SECONDS = 60
MOST_SECONDS = 2.0  # of an honest request beside an attack, in the 95th percentile
MIB = 1024 * 1024
# For each MiB that was sent; less than that counts as one.
MOST_CPU_SECONDS, MOST_MIB = 1.0, 100
# What decoding is not to blame for: 60 images go through the networks, and are scored.
SIDES = (500, 1000, 1500, 2000, 2400, 3000, 3600, 4200, 4900, 6000, 8000)
SAMPLE = "application/zip", (ROOT / "tests" / "data" / "shapes3d_batch.zip").read_bytes()
REFUSED = {413, 422, 429}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("bombs") / "log") as served:
        yield served


CLIENT = httpx.Client(timeout=CALL_SECONDS)


def post(served: Served, body: bodies.Body, path: str = "/score") -> httpx.Response:
    return CLIENT.post(f"{served.url}{path}", content=body[1], headers={"Content-Type": body[0]})


def processes(served: Served) -> list[psutil.Process]:
    return psutil.Process(served.process.pid).children(recursive=True)


def cpu_seconds(served: Served) -> float:
    """Of all processes, those that have ended included."""
    return sum(sum(process.cpu_times()[:4]) for process in processes(served))


class Memory:
    """The highest resident memory of all processes together, looked at every few milliseconds."""

    def __init__(self, served: Served) -> None:
        self._processes, self._done = processes(served), threading.Event()
        self.before = self.highest = self._now()
        self._thread = threading.Thread(target=self._watch)

    def _now(self) -> int:
        total = 0
        for process in self._processes:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.highest = max(self.highest, self._now())

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def largest_permitted(served: Served, make: Callable[[int], bytes]) -> tuple[int, bytes] | None:
    """The side and the file of the largest of this kind that is decoded."""
    largest = None
    for side in SIDES:
        file = make(side)
        if post(served, bodies.as_form([("images", "a", file)]), "/encode").status_code != 200:
            break
        largest = side, file
    return largest


@pytest.mark.parametrize("kind", BOMBS)
def test_what_a_megabyte_of_it_costs(served, kind, report):
    """The largest file of the kind that is taken, as often as a megabyte holds, and at most 512 times."""
    permitted = largest_permitted(served, BOMBS[kind])
    if permitted is None:
        report(fault=f"{kind}: every size", held="refused or unreadable", refused=1, bad_inputs=1)
        return
    side, file = permitted
    post(served, SAMPLE)
    figures, statuses = [], Counter()
    for count in (1, 8, min(max(MIB // len(file), 1), 512)):
        body = bodies.as_form([("images", str(number), file) for number in range(count)])
        began = cpu_seconds(served)
        with Memory(served) as memory:
            statuses[post(served, body, "/encode").status_code] += 1
        sent = max(len(body[1]) / MIB, 1)
        figures.append(((cpu_seconds(served) - began) / sent, (memory.highest - memory.before) / MIB / sent))
    seconds, mib = (max(column) for column in zip(*figures, strict=True))
    assert statuses.keys() <= REFUSED | {200}
    report(
        fault=f"{kind}: {side} x {side} pixels in {len(file)} bytes, 1, 8 and {count} of them",
        held=f"at most {seconds:.2f} s of CPU and {mib:.0f} MiB for a MiB sent",
        answered=statuses.pop(200, 0),
        refused=sum(statuses.values()),
        bad_inputs=3,
        lost=int(seconds > MOST_CPU_SECONDS) + int(mib > MOST_MIB),
    )


class Attack:
    """Threads that send one body after another, each as soon as the last was answered and a little rest is over."""

    def __init__(self, served: Served, payloads: list[bodies.Body]) -> None:
        self._served, self._payloads = served, payloads
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(ATTACKERS)]
        self.statuses: Counter[object] = Counter()
        self.sent_bytes = 0

    def _run(self, number: int) -> None:
        chance = random.Random(SEED + number)
        with httpx.Client(base_url=self._served.url, timeout=CALL_SECONDS) as client:
            while not self._stopping.wait(REST_SECONDS):
                body = chance.choice(self._payloads)
                try:
                    answer = client.post("/score", content=body[1], headers={"Content-Type": body[0]})
                    self.statuses[answer.status_code] += 1
                except httpx.HTTPError as error:
                    self.statuses[type(error).__name__] += 1
                self.sent_bytes += len(body[1])

    def __enter__(self) -> Attack:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def zip_of(file: bytes, count: int) -> bodies.Body:
    return bodies.as_zip({f"{number}.img": file for number in range(count)})


def largest_of_every_kind() -> list[bodies.Body]:
    """One image a request, as large as is taken, of the kinds that take longest."""
    sides = {"WebP, lossy": 2400, "WebP, lossless": 2400, "PNG, RGBA": 3500, "PNG, RGB": 4900, "PNG, 16 bit RGB": 4900}
    sides |= {"PNG, interlaced": 4900, "GIF": 3200, "TIFF, LZMA": 4900, "JPEG, progressive": 3500}
    return [bodies.as_form([("images", "a", BOMBS[kind](side))]) for kind, side in sides.items()]


def at_random() -> list[bodies.Body]:
    chance = random.Random(SEED)
    return [
        zip_of(BOMBS[chance.choice(list(BOMBS))](chance.choice(SIDES[:9])), chance.choice((1, 2, 5, 30, 200)))
        for _ in range(60)
    ]


ATTACKS: dict[str, Callable[[], list[bodies.Body]]] = {
    "512 WebP files of 64 Mpx": lambda: [zip_of(BOMBS["WebP, lossless"](8000), 512)],
    "JPEG scan bombs": lambda: [
        bodies.as_form([("images", "a", BOMBS["JPEG, 2000 refining scans"](side))]) for side in (400, 1000, 3000)
    ],
    "the largest image that is taken": largest_of_every_kind,
    "images and counts at random": at_random,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_answered_meanwhile(served, name, report):
    payloads = ATTACKS[name]()
    expected = post(served, SAMPLE).json()
    alone = [seconds_of(served, expected) for _ in range(10)]
    seconds, alive = [], Counter()
    with Attack(served, payloads) as attack, Memory(served) as memory:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            seconds.append(seconds_of(served, expected))
            alive[served.status("/livez")] += 1
            time.sleep(0.1)
    slow = float(np.quantile(seconds, 0.95))
    refused = sum(count for status, count in attack.statuses.items() if status in REFUSED)
    others = {status: count for status, count in attack.statuses.items() if status not in REFUSED | {200}}
    assert others == {}
    assert alive.keys() == {200}, alive
    report(
        fault=f"{name}: {ATTACKERS} attackers for {SECONDS:.0f} s, {sum(attack.statuses.values())} requests, "
        f"{attack.sent_bytes / MIB:.0f} MiB",
        held=f"60 images took {np.median(seconds) * 1000:.0f} ms (p95 {slow * 1000:.0f}), "
        f"{np.median(alone) * 1000:.0f} ms alone; "
        f"/livez 200 {alive[200]} times; {(memory.highest - memory.before) / MIB:.0f} MiB more; the attackers got "
        + ", ".join(f"{status} {count} times" for status, count in sorted(attack.statuses.items(), key=str)),
        answered=len(seconds) + attack.statuses[200],
        refused=refused,
        bad_inputs=sum(attack.statuses.values()),
        lost=int(slow > MOST_SECONDS),
    )


@pytest.mark.parametrize("victim", ["supervisor", "Misfit"])
def test_processes_end_although_they_are_decoding(tmp_path, victim, report):
    """Told to stop, the service answers what it has taken. An API worker that is killed leaves nobody behind."""
    image = BOMBS["PNG, interlaced"](4900)
    with serve(tmp_path / "log") as served, ThreadPoolExecutor(8) as pool:
        body = bodies.as_form([("images", str(number), image) for number in range(2)])
        under_way = [pool.submit(post, served, body) for _ in range(6)]
        while not any("service.decoding.worker" in child.cmdline() and child.nice() > 0 for child in processes(served)):
            time.sleep(0.01)
        workers = [child for child in processes(served) if "service.decoding.worker" in child.cmdline()]
        began = time.monotonic()
        if victim == "supervisor":
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(CALL_SECONDS) == 0
        else:
            served.worker(victim).kill()
        _, alive = psutil.wait_procs(workers, CALL_SECONDS)
        seconds = time.monotonic() - began
        assert alive == []
        statuses = Counter(outcome(each) for each in under_way)
    answered = sum(count for status, count in statuses.items() if status in REFUSED | {200})
    report(
        fault=f"{victim} {'told to stop' if victim == 'supervisor' else 'killed'} while large images are decoded",
        held=f"{len(workers)} decoding processes gone after {seconds:.1f} s; clients saw "
        + ", ".join(f"{status} {count} times" for status, count in sorted(statuses.items(), key=str)),
        answered=statuses[200],
        refused=answered - statuses[200],
        lost=len(under_way) - answered if victim == "supervisor" else 0,
    )


def outcome(request: Future[httpx.Response]) -> int | str:
    """The status of an answer, or what came instead."""
    try:
        return request.result().status_code
    except httpx.HTTPError as error:
        return type(error).__name__


def seconds_of(served: Served, expected: object) -> float:
    began = time.perf_counter()
    answer = post(served, SAMPLE)
    taken = time.perf_counter() - began
    assert answer.json() == expected
    return taken
