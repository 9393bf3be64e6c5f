"""Arrays in memory-mapped files, so that memory does not bound their size."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from lsfa_jax.util import atomic


class ArrayFile:
    """One array in a .npy file, read and written through the page cache; the file appears when it is complete."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)

    @property
    def num_bytes(self) -> int:
        """Size of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def reserve(self) -> np.memmap:
        """Allocates the file on the disk, under a temporary name, and maps it for writing.

        Raises:
            OSError: there is no room, or the file cannot be written.
        """
        partial = atomic.temporary(self.path)
        partial.parent.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=self.dtype, shape=self.shape)
        # Writing to a mapped page on a full disk kills the process (SIGBUS), so all of the file is allocated first.
        if hasattr(os, "posix_fallocate"):
            with partial.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        return array

    @contextmanager
    def filling(self) -> Iterator[np.memmap]:
        """Yields the array to be filled; the file appears when the block ends without an error.

        Raises:
            UserError: there is no room, or the file cannot be written.
        """
        with atomic.replacing(self.path, "make room, then go on with --resume"):
            array = self.reserve()
            yield array
            array.flush()

    def drop_partial(self) -> None:
        """Removes an incomplete file, which frees its space."""
        atomic.temporary(self.path).unlink(missing_ok=True)

    def open(self) -> np.ndarray:
        """Maps the complete file for reading."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)
