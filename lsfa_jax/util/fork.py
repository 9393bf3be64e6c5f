"""Detects a forked child process, in which JAX would wait for ever for threads that only its parent has."""

import os

_used_in: int | None = None


def check() -> None:
    """Records the process that uses devices; called before each use.

    Raises:
        RuntimeError: this process was forked from one that has used devices.
    """
    global _used_in
    process = os.getpid()
    if _used_in is None:
        _used_in = process
    if _used_in != process:
        raise RuntimeError(
            "this process was forked from one that had used lsfa_jax, and JAX does not work in it. Start processes by "
            'joblib\'s default backend "loky" or multiprocessing.get_context("spawn"), or fork before the model is '
            "first used and load it in each child"
        )
