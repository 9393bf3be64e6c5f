"""Bags of words: how often each word of a whole text occurs in it, where the word ids of a corpus are of cut texts.

Words are the tokenizer's; as by scikit-learn's default, a single letter or digit is none, but for a character of a
script without spaces and an emoji.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import offsets_of
from lsfa_jax.data.tokenizer import Tokenizer, is_character
from lsfa_jax.data.vocabulary import WordCounter

LEAST_DOCUMENTS = 2
"""A word of fewer training documents is not counted."""

_PARTS = ("bag_words", "bag_counts", "bag_offsets")


def counted_words(words: Sequence[str], tokenizer: Tokenizer) -> Sequence[str]:
    """Returns the words of a text that are counted."""
    if tokenizer.kind not in ("words", "runs"):
        return words
    return [word for word in words if len(word) > 1 or is_character(word)]


class BagSpool:
    """The bags of N rows on disk, words numbered in the order in which they first occur."""

    def __init__(self, folder: Path) -> None:
        """Opens files without names in a folder: they are gone with the process, however that ends."""
        self._ids, self._counts = (TemporaryFile(dir=folder) for _ in range(2))  # noqa: SIM115 - as long as the spool
        self._sizes = array("q")

    def add(self, words: Sequence[str], counter: WordCounter) -> None:
        """Adds a row: the words of a text, which `counter` numbers."""
        counts = Counter(words)
        self._ids.write(counter.number(list(counts)).tobytes())
        self._counts.write(np.fromiter(counts.values(), np.int32, len(counts)).tobytes())
        self._sizes.append(len(counts))

    def rows(self, num_words: int) -> csr_matrix:
        """Returns the bags, int32[N, num_words], mapped from the files."""
        sizes = np.array(self._sizes, np.int64)
        ids, counts = (_mapped(file, int(sizes.sum())) for file in (self._ids, self._counts))
        return csr_matrix((counts, ids, offsets_of(sizes)), (len(sizes), num_words), copy=False)

    def close(self) -> None:
        """Closes the files."""
        self._ids.close()
        self._counts.close()


def choose_words(rows: csr_matrix, in_training: np.ndarray) -> np.ndarray:
    """Returns the ids, ascending, of the words that at least two of the rows where bool[N] is true have."""
    words = rows.indices[np.repeat(in_training, np.diff(rows.indptr))]
    return np.flatnonzero(np.bincount(words, minlength=rows.shape[1]) >= LEAST_DOCUMENTS)


def write(folder: Path, bags: csr_matrix) -> None:
    """Writes the bags of a split into its folder."""
    bags.sort_indices()
    for name, values in zip(_PARTS, (bags.indices, bags.data, bags.indptr), strict=True):
        np.save(folder / f"{name}.npy", values)


def read(folder: Path, num_words: int, mapped: bool) -> csr_matrix:
    """Reads what `write` wrote, int32[N, num_words]; mapped, the arrays are views of the files."""

    def array_of(name: str) -> np.ndarray:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r" if mapped else None, allow_pickle=False))

    words, counts, offsets = map(array_of, _PARTS)
    return csr_matrix((counts, words, offsets), (len(offsets) - 1, num_words), copy=False)


def _mapped(file: IO[bytes], size: int) -> np.ndarray:
    file.flush()
    # An empty file cannot be mapped.
    return np.asarray(np.memmap(file, np.int32, mode="r")) if size else np.zeros(0, np.int32)
