"""What the networks can run on: GPUs, and CPUs that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def has_gpu() -> bool:
    """Whether there is a GPU that CUDA may be able to use."""
    return any(device.exists() for device in GPU_DEVICES)


def cpu_count() -> int:
    """CPUs that this process may use: its affinity, and the quota of its cgroup where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _cgroup_cpus(Path("/sys/fs/cgroup")) or allowed)


def _cgroup_cpus(root: Path) -> int | None:
    """The CPU quota under `root`, of cgroup version 2 or 1, rounded up; None without one."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = map(int, " ".join((root / file).read_text() for file in files).split())
        except (OSError, ValueError):  # no such file, or "max" in place of a quota
            continue
        if quota > 0:
            return math.ceil(quota / period)
    return None
