"""Arrays in files, so that memory does not bound them: each is under its name once it is whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lsfa_jax.util.console import UserError


class ArrayFile:
    """One array in a .npy file, read and written through the page cache."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self._partial = path.with_suffix(".partial")

    @property
    def num_bytes(self) -> int:
        """Of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def reserve(self) -> np.memmap:
        """Takes room on the disk and returns the array to be filled, under a partial name.

        Raises:
            OSError: there is no room, or the file cannot be written.
        """
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(self._partial, mode="w+", dtype=self.dtype, shape=self.shape)
        # A mapped page that finds the disk full would kill the process, so room is asked for now.
        if hasattr(os, "posix_fallocate"):
            with self._partial.open("r+b") as whole:
                os.posix_fallocate(whole.fileno(), 0, self._partial.stat().st_size)
        return array

    @contextmanager
    def filling(self) -> Iterator[np.memmap]:
        """Yields the array; it is there under its name when the block has ended without an error, else it is dropped.

        Raises:
            UserError: there is no room, or the file cannot be written.
        """
        try:
            array = self.reserve()
            yield array
            array.flush()
            self._partial.rename(self.path)
        except OSError as error:
            raise UserError(
                f"{self._partial}: {error.strerror or error}; make room, then go on with --resume"
            ) from error
        finally:
            self.drop_partial()

    def drop_partial(self) -> None:
        """Gives the room of an array that is not whole back."""
        self._partial.unlink(missing_ok=True)

    def open(self) -> np.ndarray:
        """Maps the file."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)
