"""Prepared arrays in the cache: one folder for each set of inputs that decides its content, written atomically.

A folder is checked before it is used and written again where it is damaged. By default the check compares sizes and
samples of the content, so that a start does not read all of a large corpus; `verify="full"` reads everything.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lsfa_jax.config import Verify
from lsfa_jax.util import atomic
from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import warn

_MANIFEST = "manifest.json"
_ADVICE = "make room there, or name another folder in the environment variable LSFA_DATA"

# The sampled digest covers all of a file up to their product, 1 MiB.
_NUM_SAMPLES = 64
_SAMPLE_SIZE = 2**14

_KEY_DIGITS = 16


def folder(
    kind: str,
    decides: Mapping[str, object],
    write: Callable[[Path], None],
    *,
    sources: Sequence[Path] = (),
    verify: Verify = "sampled",
) -> Path:
    """Returns the cache's folder for some inputs; `write` fills it where it is missing or damaged.

    Args:
        kind: what the folder holds, the beginning of its name ('rcv1', 'vectors').
        decides: everything that decides the content, as JSON can hold it.
        write: puts files into the empty folder that is its argument.
        sources: files that the content is computed from. `decides` knows them by their sampled digests; 'full' finds
            changes in between too.
        verify: how much of the sources and of the folder is read to check them.

    Raises:
        UserError: the cache cannot be written; and what `write` raises.
    """
    kept = path(kind, decides)
    if kept.exists():
        error = damage(kept, verify, sources)
        if error is None:
            return kept
        warn(f"{kept}: {error}; it is written again")
    with atomic.folder(kept, lambda existing: damage(existing, "full", sources) is None, _ADVICE) as new:
        # Before the sources are read: one that changes meanwhile does not match its digest afterwards.
        of_sources = _joint_digest(sources)
        write(new)
        files = {str(file.relative_to(new)): _seal(file) for file in sorted(new.rglob("*")) if file.is_file()}
        manifest = {"decides": dict(decides), "sources": of_sources, "files": files}
        (new / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    return kept


def path(kind: str, decides: Mapping[str, object]) -> Path:
    """Returns the path of the folder, whether or not it exists."""
    key = hashlib.sha256(json.dumps(dict(decides), sort_keys=True).encode()).hexdigest()
    return cache_dir() / "prepared" / f"{kind}-{key[:_KEY_DIGITS]}"


def pattern(kind: str) -> str:
    """Returns the pattern of the names of the folders of a kind, and of no other kind that begins with its name."""
    return f"{kind}-{'[0-9a-f]' * _KEY_DIGITS}"


def damage(kept: Path, verify: Verify = "sampled", sources: Sequence[Path] = ()) -> str | None:
    """Describes how a folder of the cache, or with 'full' its sources, differ from what was written; None: not."""
    try:
        manifest = json.loads((kept / _MANIFEST).read_bytes())
        for name, seal in manifest["files"].items():
            file = kept / name
            if file.stat().st_size != seal["bytes"] or digest(file, verify) != seal[verify]:
                return f"{name} is not as it was written"
        if verify == "full" and _joint_digest(sources) != manifest["sources"]:
            return "its source files have changed"
    except OSError as error:
        return f"cannot be read ({error.strerror}: {Path(error.filename or '').name})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is damaged"
    return None


def bytes_of(kept: Path) -> int:
    """Returns the size of a folder of the cache."""
    return sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())


def digest(file: Path, verify: Verify = "sampled") -> str:
    """Returns a checksum of a file's content.

    'sampled' covers the size, and of a file over 1 MiB 64 blocks of 16 KiB: the first, the last, and others evenly
    spaced between them. It does not depend on the name or the time of modification. A change between the blocks that
    keeps the size goes unnoticed. That takes an edit in place: compressed files change throughout, and an insertion
    moves everything behind it. 'full' covers all bytes.
    """
    with file.open("rb") as stream:
        if verify == "full":
            return hashlib.file_digest(stream, "sha256").hexdigest()
        size = file.stat().st_size
        sampled = hashlib.sha256(str(size).encode())
        if size <= _NUM_SAMPLES * _SAMPLE_SIZE:
            sampled.update(stream.read())
        else:
            for start in np.linspace(0, size - _SAMPLE_SIZE, _NUM_SAMPLES).astype(np.int64).tolist():
                stream.seek(start)
                sampled.update(stream.read(_SAMPLE_SIZE))
        return sampled.hexdigest()


def _joint_digest(files: Sequence[Path]) -> str:
    return hashlib.sha256("".join(digest(file, "full") for file in files).encode()).hexdigest()


def _seal(file: Path) -> dict[str, object]:
    return {"bytes": file.stat().st_size, "sampled": digest(file), "full": digest(file, "full")}
