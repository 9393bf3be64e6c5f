"""Compiled programs: kept on disk from run to run, and counted.

XLA compiles a program for each shape that a step, a collection or a ranking meets. A stored program is machine code
that is loaded and run, so the folder must be one that nobody else can write into.
"""

import os
import stat
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax

from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import warn

# Programs that were not used for the longest time go when all together are larger than this, in bytes.
_MOST_BYTES = 2 * 2**30

# JAX's names of what happened.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"

_counted: Counter[str] = Counter()
jax.monitoring.register_event_listener(lambda event, **_: _counted.update([event]))
jax.monitoring.register_event_duration_secs_listener(lambda event, duration_secs, **_: _counted.update([event]))


def programs() -> int:
    """Returns how many programs this process has compiled so far, or found on disk."""
    return _counted[_COMPILED]


def summary() -> str:
    """Says in words how many programs this process has compiled so far."""
    return f"{programs():,} programs compiled, {_counted[_FOUND]:,} of them found on disk"


def keep_on_disk() -> None:
    """Has JAX keep compiled programs in `cache_dir()/compiled` and look for them there; for commands, not libraries.

    What the user has set wins: the environment variable JAX_COMPILATION_CACHE_DIR (empty: nothing is kept) or JAX's own
    setting. A folder that cannot be used is told of, and the run goes on without.
    """
    now: Any = jax.config
    if now.jax_compilation_cache_dir is not None or not now.jax_enable_compilation_cache:
        return
    folder = cache_dir() / "compiled"
    error = _fault(folder)
    if error:
        warn(f"{folder}: {error}; every run compiles anew. JAX_COMPILATION_CACHE_DIR names another folder")
        return
    _sweep(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The many small programs between the steps are each compiled in a moment, and all together in seconds.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _fault(folder: Path) -> str | None:
    """Says why compiled programs cannot be kept in a folder, which is made where it is missing; None: they can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            about = folder.stat()
    except OSError as error:
        return f"cannot be written ({error.strerror or error})"
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return "others may write there too, and what is there would be run"
    return None


def _sweep(folder: Path) -> None:
    """Takes away the programs that were not used for the longest time until the rest are small enough."""
    try:
        files = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda pair: -pair[0].st_atime)
        total = 0
        for about, file in files:
            total += about.st_size
            if total > _MOST_BYTES:
                file.unlink()
    except OSError:
        return  # another process sweeps
