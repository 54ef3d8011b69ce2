"""What a command costs with all of its processes: wall and CPU seconds, and the most memory at a time."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLED_SECONDS = 0.25
MIB = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    """seconds of wall clock, CPU seconds of all processes, and their most memory at a time in MiB, shared pages once"""

    seconds: float
    cpu_seconds: float
    mib: float


class ProcessWatch:
    """Samples the processes below some roots while the block runs: what starts and ends in between is not seen."""

    def __init__(self, *roots: int) -> None:
        self._roots = [psutil.Process(pid) for pid in roots]
        self._cpu: dict[tuple[int, float], float] = {}
        self._before: dict[tuple[int, float], float] = {}
        self._mib, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ProcessWatch:
        self._sample()
        self._before, self._mib, self._began = dict(self._cpu), 0.0, time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
        cpu = sum(seconds - self._before.get(key, 0) for key, seconds in self._cpu.items())
        self.cost = Cost(time.monotonic() - self._began, cpu, self._mib)

    def _run(self) -> None:
        while not self._ended.wait(SAMPLED_SECONDS):
            self._sample()

    def _sample(self) -> None:
        memory = 0
        for root in self._roots:
            with contextlib.suppress(psutil.Error):
                for process in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        self._cpu[process.pid, process.create_time()] = times.user + times.system
                        memory += process.memory_full_info().pss
        self._mib = max(self._mib, memory / MIB)


def run_watched(command: Sequence[str], *others: int, cwd: Path, env: Mapping[str, str]) -> Cost:
    """Run a command to its end, and watch it with the processes of the pids `others`. Raises CalledProcessError."""
    process = subprocess.Popen(command, cwd=cwd, env=env)
    with ProcessWatch(process.pid, *others) as watch:
        code = process.wait()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return watch.cost
