"""One process at a time writes into a folder: a lock of the operating system, and a file that names the process.

The system releases the lock when the process ends, however it ends, so a lock never outlives its process. On shared
file systems whose locks do not reach other machines, the file decides: the process that holds the folder touches it
every few seconds, and another machine takes over when that has stopped.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from lsfa_jax.util import atomic
from lsfa_jax.util.console import UserError

_SECONDS_BETWEEN_TOUCHES = 15.0
_STALE_AFTER = 120.0


class FolderLock:
    """Locks a folder for the threads of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = filelock.FileLock(folder / ".lock", thread_local=False)
        self._holder = folder / ".lock.json"

    def holder(self) -> str:
        """Names the process that holds the folder; "" where none does, or the folder cannot be written."""
        if not (self.folder / ".lock").exists():
            return ""
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            return _named(self._read_holder())
        except OSError:
            return ""
        try:
            return _named(self._read_holder()) if self._is_held_elsewhere() else ""
        finally:
            self._lock.release()

    def is_part(self, path: Path) -> bool:
        """Whether a file in the folder belongs to the lock."""
        return path.name in (".lock", self._holder.name, atomic.temporary(self._holder).name)

    @contextmanager
    def held(self, advice: str) -> Iterator[None]:
        """Holds the folder, which is created where it is missing, and removed again if it is still empty at the end.

        Args:
            advice: what the user can do about a folder that cannot be written or is in use.

        Raises:
            UserError: another process holds the folder, or it cannot be written.
        """
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        with atomic.errors(self.folder, advice):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire(advice)
        ended = threading.Event()
        thread = threading.Thread(target=self._touch, args=(ended,), name="folder lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._release(missing)

    def _acquire(self, advice: str) -> None:
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise self._in_use(advice) from None
        if self._is_held_elsewhere():
            self._lock.release()
            raise self._in_use(advice)
        about = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        atomic.write_text(self._holder, json.dumps(about) + "\n", advice)

    def _release(self, missing: list[Path]) -> None:
        self._holder.unlink(missing_ok=True)
        with suppress(OSError):
            if [path.name for path in self.folder.iterdir()] == [".lock"] and self.folder in missing:
                (self.folder / ".lock").unlink()
        self._lock.release()
        with suppress(OSError):  # a folder that is not empty stays, and so do its parents
            for path in missing:
                path.rmdir()

    def _touch(self, ended: threading.Event) -> None:
        while not ended.wait(_SECONDS_BETWEEN_TOUCHES):
            with suppress(OSError):
                os.utime(self._holder)

    def _is_held_elsewhere(self) -> bool:
        """Whether a process of another machine touched its file recently, although this one got the system's lock."""
        holder = self._read_holder()
        return bool(holder) and holder["host"] != platform.node() and self._seconds_since_touch() < _STALE_AFTER

    def _seconds_since_touch(self) -> float:
        # Both times are those of the file system: clocks of machines differ.
        os.utime(self.folder / ".lock")
        return (self.folder / ".lock").stat().st_mtime - self._holder.stat().st_mtime

    def _read_holder(self) -> dict[str, str]:
        """Returns pid, host and start time of the process that wrote the file last; {} if it cannot be read."""
        try:
            holder = json.loads(self._holder.read_text(encoding="utf-8"))
            return {name: str(holder[name]) for name in ("pid", "host", "since")}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _in_use(self, advice: str) -> UserError:
        holder = self._read_holder()
        in_use = f"{self.folder}: in use by {_named(holder)}; wait until it ends"
        if not holder:
            return UserError(f"{in_use}, or {advice}")
        if holder["host"] == platform.node():
            return UserError(f"{in_use}, stop it (kill {holder['pid']}), or {advice}")
        return UserError(
            f"{in_use}, stop it there, or {advice}. If it no longer runs, remove {self._holder}, or start again in "
            f"{_STALE_AFTER / 60:.0f} minutes"
        )


def _named(holder: dict[str, str]) -> str:
    """Returns the name of a process for messages, from what `_read_holder` returned."""
    if not holder:
        return "another process"
    host = "this machine" if holder["host"] == platform.node() else holder["host"]
    return f"process {holder['pid']} on {host} since {holder['since']}"
