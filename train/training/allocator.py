"""A setting of glibc's allocator that keeps freed memory for the next training step."""

from __future__ import annotations

import ctypes

# The parameters' numbers in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Make this process reuse the memory that it frees. Return whether the C library accepted the setting.

    glibc maps every block of more than 32 MB (at first 128 kB) separately, and unmaps it when it is freed. Each
    training step allocates the same activations again, so the kernel would clear the same pages and fault them in at
    every step: a tenth to a third of the time of a convolutional step. With this setting the process keeps one heap at
    its peak size, which the next step would reach anyway. Other C libraries (macOS, musl, Windows) are left unchanged.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(*setting) == 1 for setting in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)))
