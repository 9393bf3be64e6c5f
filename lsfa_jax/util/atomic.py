"""Atomic writes: a file or a folder appears under its name when it is complete, or not at all.

Everything is written under a temporary name in the folder of its target, synchronised with the disk, then renamed,
which is atomic. Without the synchronisation a crash of the machine could leave the name without the content.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
from types import TracebackType
from typing import TextIO

from lsfa_jax.util.console import UserError

ADVICE = "make room, or choose another place"

# Prefixes of temporary folders. What a killed process left is removed after so many seconds; no write takes as long.
_UNFINISHED, _REPLACED = ".making-", ".damaged-"
_ABANDONED_AFTER = 48 * 3600


@contextmanager
def errors(path: Path, advice: str = ADVICE) -> Iterator[None]:
    """Reports an OSError of the block as a UserError that names `path`, the system's reason and what to do."""
    try:
        yield
    except BrokenPipeError:  # of standard output, not of the file
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); {advice}") from error


def check_writable(path: Path, option: str, inputs: Iterable[Path] = ()) -> None:
    """Raises UserError where a file cannot be written, so that it is noticed before the work and not after it.

    Args:
        path: the file. It may be there already, or be a pipe or a device.
        option: which names the file, for messages.
        inputs: files that the command reads, and must not overwrite.
    """
    named = f"{option} {path}"
    try:
        if path.is_dir():
            raise UserError(f"{named}: is a folder; name a file in it")
        if path.exists() and any(file.exists() and path.samefile(file) for file in inputs):
            raise UserError(f"{named}: the command or the run needs that file; choose another")
        # A symbolic link is written where it leads to.
        target = path.resolve()
        if target.exists() and not target.is_file():
            if not os.access(target, os.W_OK):
                raise UserError(f"{named}: cannot be written; choose another")
            return
        if not target.parent.is_dir():
            raise UserError(f"{named}: there is no folder {target.parent}; create it, or choose another")
        # Permissions do not tell for root, nor on a read-only file system: a file is created, under a long name.
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"):
            pass
    except OSError as error:
        raise UserError(f"{named}: cannot be written ({error.strerror}); choose another") from None


def temporary(path: Path) -> Path:
    """Returns the name under which `path` is written; what a killed process left there is overwritten."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path, advice: str = ADVICE) -> Iterator[Path]:
    """Yields a temporary path; the file that the block writes there becomes `path` when the block ends.

    After an error in the block the temporary file is removed, and `path` is as it was.

    Raises:
        UserError: the file cannot be written; the message names it and ends with `advice`.
    """
    partial = temporary(path)
    with errors(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _synchronise(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, advice: str = ADVICE) -> None:
    """Writes a file, and its folder where that is missing.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path, advice) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str, advice: str = ADVICE) -> None:
    """Writes UTF-8 text, with line ends as they are in `text`.

    Raises:
        UserError: the file cannot be written.
    """
    write_bytes(path, text.encode(), advice)


class TextFiles:
    """Several text files that appear together when a `with` block ends without an error; after an error none appears.

    A target that is not a regular file (a named pipe, /dev/null) is written directly.
    """

    def __init__(self) -> None:
        self._written: list[tuple[Path, Path]] = []

    def open(self, path: Path) -> TextIO:
        """Opens a file for UTF-8 text, with line ends as they are written; to be closed before the block ends.

        Raises:
            UserError: the file cannot be opened.
        """
        # A symbolic link stays one: the file that it names is replaced.
        path = path.resolve()
        direct = path.exists() and not path.is_file()
        # Two commands may write the same output at once: the process id keeps their lines apart.
        partial = path if direct else path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            stream = partial.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another") from None
        if not direct:
            self._written.append((partial, path))
        return stream

    def __enter__(self) -> "TextFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for partial, path in self._written:
                    with errors(path):
                        _synchronise(partial)
                for partial, path in self._written:
                    with errors(path):
                        partial.replace(path)
        finally:
            for partial, _ in self._written:
                partial.unlink(missing_ok=True)


@contextmanager
def folder(path: Path, is_valid: Callable[[Path], bool] = Path.is_dir, advice: str = ADVICE) -> Iterator[Path]:
    """Yields an empty folder beside `path` that becomes `path` when the block ends without an error.

    Args:
        path: the folder to be written.
        is_valid: decides about a folder that is there already, such as one of a process that was faster: a valid one
            stays and the new one is removed, an invalid one is replaced.
        advice: what the user can do about a folder that cannot be written.

    Raises:
        UserError: the folder cannot be written.
    """
    with errors(path.parent, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        new = Path(mkdtemp(dir=path.parent, prefix=_UNFINISHED))
        try:
            yield new
            for file in new.rglob("*"):
                if file.is_file():
                    _synchronise(file)
            _move(new, path, is_valid)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _move(new: Path, path: Path, is_valid: Callable[[Path], bool]) -> None:
    try:
        new.rename(path)
    except OSError:
        if not path.exists():
            raise
        if is_valid(path):
            return
        replaced = Path(mkdtemp(dir=path.parent, prefix=_REPLACED))
        path.rename(replaced / path.name)
        new.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for left in [*parent.glob(f"{_UNFINISHED}*"), *parent.glob(f"{_REPLACED}*")]:
        if left.stat().st_mtime < time.time() - _ABANDONED_AFTER:
            shutil.rmtree(left, ignore_errors=True)


def _synchronise(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
