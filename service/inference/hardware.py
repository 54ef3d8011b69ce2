"""What the networks can run on: whether this machine has a GPU. (`joblib.cpu_count` counts the usable CPUs.)"""

from __future__ import annotations

from pathlib import Path

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def has_gpu() -> bool:
    """Return whether there is a GPU that CUDA may be able to use."""
    return any(device.exists() for device in GPU_DEVICES)
