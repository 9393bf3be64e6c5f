"""The processor cores that this process may use."""

import os


def available() -> int:
    """Returns how many cores the process may run on: under a batch queue fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
