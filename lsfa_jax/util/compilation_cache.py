"""Compiled programs: stored on the disk for later runs, and counted.

XLA compiles a program for each function and each shape of its arguments. A stored program is machine code that later
runs load and execute, so only the user may be able to write into the folder.
"""

import hashlib
import os
import platform
import stat
import tempfile
from collections import Counter
from pathlib import Path

import filelock
import jax

from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import plural, warn

# JAX removes the least recently used programs beyond this size in bytes.
_MAX_BYTES = 2 * 2**30

# JAX's names of the events.
_COMPILED = "/jax/core/compile/backend_compile_duration"  # also recorded for a program that is loaded from the disk
_LOADED = "/jax/compilation_cache/cache_hits"

_counts: Counter[str] = Counter()
jax.monitoring.register_event_listener(lambda event, **_: _counts.update([event]))
jax.monitoring.register_event_duration_secs_listener(lambda event, duration_secs, **_: _counts.update([event]))


def programs() -> int:
    """Returns the number of programs that this process has compiled, or loaded from the disk."""
    return _counts[_COMPILED]


def summary() -> str:
    """Returns a sentence with the number of programs that were compiled and of those loaded from the disk."""
    loaded = _counts[_LOADED]
    return f"{plural(programs() - loaded, 'program')} compiled, {loaded:,} loaded from the disk"


def default_folder() -> Path:
    """Returns the folder for programs of this kind of processor.

    A user folder can be shared by machines: a program for another processor could use instructions that this one lacks.
    """
    try:
        cpu = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Feat"))
        )
    except (OSError, StopIteration):  # another system than Linux
        cpu = platform.processor()
    digest = hashlib.sha256(cpu.encode()).hexdigest()[:8]
    return cache_dir() / "compiled" / f"{platform.machine() or 'machine'}-{digest}"


def keep_on_disk() -> None:
    """Stores compiled programs in `default_folder()`, where later runs look for them; for commands and `LSFA`.

    A setting of the user has priority: the environment variable JAX_COMPILATION_CACHE_DIR (empty: nothing is stored),
    JAX_COMPILATION_CACHE_MAX_SIZE, or JAX's configuration. Where the folder cannot be used, a warning is printed.
    """
    config = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return
    folder = default_folder()
    error = _error(folder)
    if error:
        warn(f"{folder}: {error}; compiled programs are not stored. Set JAX_COMPILATION_CACHE_DIR to another folder")
        return
    config.update("jax_compilation_cache_dir", str(folder))
    if config.jax_compilation_cache_max_size == -1:  # type: ignore[attr-defined]
        config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    # Many small programs stand between the steps; each compiles in milliseconds, all together in seconds.
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _error(folder: Path) -> str | None:
    """Creates the folder where it is missing; returns why it cannot be used, or None."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            about = folder.stat()
        if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return "other users can write into it, and its programs would be executed"
        _remove_incomplete(folder)
    except (OSError, filelock.Timeout) as error:
        return f"cannot be written ({getattr(error, 'strerror', None) or error})"
    return None


def _remove_incomplete(folder: Path) -> None:
    """Removes programs without the time of their last use: JAX fails to store anything beside one.

    A process that was killed while it stored a program leaves one. The lock is JAX's.
    """
    with filelock.FileLock(folder / ".lockfile", timeout=10):
        for program in folder.glob("*-cache"):
            if not program.with_name(f"{program.name.removesuffix('-cache')}-atime").is_file():
                program.unlink()
