"""Freed memory is kept for the next training step instead of going back to the operating system."""

from __future__ import annotations

import ctypes

# The parameters' numbers in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """From here on this process reuses what it frees; whether the C library can be told so.

    glibc maps every block of more than 32 MB, and at first of more than 128 kB, by itself and unmaps it when it is
    freed. A training step allocates the same activations as the one before, so that each would have the kernel
    clear the same pages again and fault them in one by one: a tenth to a third of a convolutional step. With one
    growing heap that is never trimmed the process stays at its peak, which it would return to at the next step.
    Where the C library is another one (macOS, musl, Windows) nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(*setting) == 1 for setting in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)))
