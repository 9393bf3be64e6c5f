"""A setting of the C library's memory allocator that speeds up training on a CPU."""

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Sets glibc's malloc to keep freed memory in the process instead of returning it to the kernel.

    A training step on a CPU allocates and frees hundreds of megabytes. By default each large buffer is a new mapping,
    whose pages the kernel fills with zeros: measured, a step takes 1.2 times as long. To be called before the first
    array is created. Without glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (
            (_ARENA_MAX, 1),
            (_MMAP_MAX, 0),
            (_TRIM_THRESHOLD, 2**31 - 1),
            (_TOP_PAD, 64 * 2**20),
        ):
            mallopt(ctypes.c_int(parameter), ctypes.c_int(value))
