"""What takes long to make and is wanted again: folders in the cache, named by all that decides their content.

A folder appears there whole or not at all. What was damaged since is noticed before it is used, and made anew.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from lsfa_jax.data.download import cache_dir
from lsfa_jax.util.console import UserError, warn

_MANIFEST = "manifest.json"

# What a killed process left is taken away after so many seconds; nothing takes as long to make.
_ABANDONED = 48 * 3600


def folder(kind: str, decides: Mapping[str, Any], write: Callable[[Path], None]) -> Path:
    """Returns a folder with what `write` makes, after calling it where the cache has no such folder.

    Args:
        kind: what it is, the beginning of the folder's name ('rcv1', 'vectors').
        decides: all that decides the content, as JSON can hold it.
        write: puts files into the empty folder that it is given.

    Raises:
        UserError: the cache cannot be written; what `write` raises.
    """
    kept = path(kind, decides)
    if kept.exists():
        error = damage(kept)
        if error is None:
            return kept
        warn(f"{kept}: {error}; it is made anew")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        _sweep(kept.parent)
        made = Path(mkdtemp(dir=kept.parent, prefix=".making-"))
        try:
            write(made)
            files = {str(file.relative_to(made)): _seal(file) for file in sorted(made.rglob("*")) if file.is_file()}
            (made / _MANIFEST).write_text(json.dumps({"decides": dict(decides), "files": files}, indent=1))
            _put(made, kept)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{kept.parent}: cannot be written ({error.strerror or error}). Make room there, or name another folder in "
            "the environment variable LSFA_DATA."
        ) from None
    return kept


def path(kind: str, decides: Mapping[str, Any]) -> Path:
    """Returns where the folder is, or would be."""
    key = hashlib.sha256(json.dumps(dict(decides), sort_keys=True).encode()).hexdigest()
    return cache_dir() / "prepared" / f"{kind}-{key[:16]}"


def damage(kept: Path) -> str | None:
    """Says what is wrong with a folder of the cache; None: it is as it was written."""
    try:
        files = json.loads((kept / _MANIFEST).read_bytes())["files"]
        for name, seal in files.items():
            if (kept / name).stat().st_size != seal["bytes"] or _seal(kept / name) != seal:
                return f"{name} is not as it was written"
    except OSError as error:
        return f"cannot be read ({error.strerror}: {Path(error.filename or '').name})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is damaged"
    return None


def bytes_of(kept: Path) -> int:
    """Returns the size of a folder of the cache."""
    return sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())


def digest(file: Path) -> str:
    """Returns the checksum of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": digest(file)}


def _put(made: Path, kept: Path) -> None:
    """Moves a folder to its place; another process that was first keeps it, a damaged one makes way."""
    try:
        made.rename(kept)
    except OSError:
        if damage(kept) is None:
            return
        aside = Path(mkdtemp(dir=kept.parent, prefix=".damaged-"))
        kept.rename(aside / kept.name)
        made.rename(kept)
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for left in [*folder.glob(".making-*"), *folder.glob(".damaged-*")]:
        if left.stat().st_mtime < time.time() - _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
