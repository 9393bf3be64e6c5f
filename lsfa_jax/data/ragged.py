"""Rows of different lengths as two arrays: the words of documents, their labels."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """N rows of different lengths; row i is `values[offsets[i] : offsets[i + 1]]`.

    Attributes:
        values: [all entries, ...], the rows one after another.
        offsets: int64[N + 1], from 0, not decreasing.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of_empty_rows(cls, number: int) -> "Ragged":
        """Returns int32 rows without values."""
        return cls.from_sizes(np.zeros(0, np.int32), np.zeros(number, np.int64))

    @classmethod
    def from_sizes(cls, values: np.ndarray, sizes: np.ndarray) -> "Ragged":
        """Cuts `values` into rows of the given sizes, int[N]."""
        return cls(values, offsets_of(sizes))

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> "Ragged":
        """Joins N sequences of numbers, as int32."""
        arrays: list[np.ndarray] = [np.asarray(row, np.int32) for row in rows]
        sizes = np.array([len(row) for row in arrays], np.int64)
        return cls.from_sizes(np.concatenate([np.zeros(0, np.int32), *arrays]), sizes)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """int64[N], entries of each row."""
        return np.diff(self.offsets)

    @property
    def row_ids(self) -> np.ndarray:
        """int64[all entries], the row of each entry."""
        return np.repeat(np.arange(self.num_rows), self.sizes)

    def row(self, index: int) -> np.ndarray:
        """Returns one row, a view."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def kept(self, entries: np.ndarray) -> "Ragged":
        """Leaves out entries where bool[all entries] is false."""
        return Ragged.from_sizes(self.values[entries], np.bincount(self.row_ids[entries], minlength=self.num_rows))

    def take(self, rows: np.ndarray) -> "Ragged":
        """Gathers rows, by int[M] numbers in the given order or by a bool[N] mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        sizes = self.sizes[rows]
        offsets = offsets_of(sizes)
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], sizes)
        return Ragged(self.values[positions], offsets)


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Returns where rows of sizes int[N] begin and the last ends: int64[N + 1]."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def blocks_of(offsets: np.ndarray, size: int) -> Iterator[slice]:
    """Yields consecutive blocks of rows with at most `size` entries each, of one row where that has more.

    Args:
        offsets: int64[N + 1], where the N rows begin and the last ends.
        size: entries.
    """
    start = 0
    while start < len(offsets) - 1:
        stop = max(start + 1, int(np.searchsorted(offsets, int(offsets[start]) + size, "right")) - 1)
        yield slice(start, stop)
        start = stop
