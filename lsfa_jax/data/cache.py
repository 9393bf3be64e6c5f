"""What takes long to make and is wanted again: folders in the cache, named by all that decides their content.

A folder appears there whole or not at all. What was damaged since is noticed before it is used, and made anew.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lsfa_jax.data.download import cache_dir
from lsfa_jax.util import atomic
from lsfa_jax.util.console import warn

_MANIFEST = "manifest.json"

_ADVICE = "make room there, or name another folder in the environment variable LSFA_DATA"


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
    with atomic.folder(kept, lambda there: damage(there) is None, _ADVICE) as new:
        write(new)
        files = {str(file.relative_to(new)): _seal(file) for file in sorted(new.rglob("*")) if file.is_file()}
        (new / _MANIFEST).write_text(json.dumps({"decides": dict(decides), "files": files}, indent=1))
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
