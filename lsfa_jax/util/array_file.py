"""Arrays in memory-mapped files, so that memory does not bound their size."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from lsfa_jax.util import atomic


def read(path: Path, *, mapped: bool = True) -> np.ndarray:
    """Reads the array of a .npy file; mapped, it is a read-only view of the file."""
    # A plain view: slices of np.memmap are slow.
    return np.asarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))


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
        return read(self.path)


@contextmanager
def appending(path: Path, dtype: DTypeLike) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields a function that appends rows to a one-dimensional array in a .npy file, whose size is not known before."""
    size = 0

    def write_header() -> None:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (size,)}
        np.lib.format.write_array_header_1_0(file, header)

    def append(values: np.ndarray) -> None:
        nonlocal size
        file.write(np.ascontiguousarray(values, dtype).data)
        size += len(values)

    with path.open("wb") as file:
        write_header()
        yield append
        # As long as the first one: NumPy leaves room for a larger size.
        file.seek(0)
        write_header()
