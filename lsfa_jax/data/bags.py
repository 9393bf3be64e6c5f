"""Bags of terms: how often each word, and each pair of adjacent words, occurs in a text.

A bag is of the whole text, where the word ids of a corpus are of cut texts; pairs are of its first words. Words are the
tokenizer's; as by scikit-learn's default, a single letter or digit is none, but for a character of a script without
spaces and an emoji.

A term's key is the number of its word, or those of both words in one integer.
"""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import blocks_of, offsets_of
from lsfa_jax.data.tokenizer import Tokenizer, is_character
from lsfa_jax.data.vocabulary import WordCounter
from lsfa_jax.util import array_file
from lsfa_jax.util.array_file import appending

LEAST_DOCUMENTS = 2
"""A term of fewer training documents is not counted."""

# Pairs are of so many words at the beginning of a text; those of whole laws make a label tree worse (docs/recipe.md).
_PAIRED_WORDS = 100

_SHIFT = 32

# Terms that are counted at a time, and slots of the table that counts approximately.
_BLOCK, _SLOTS = 1 << 22, 1 << 24

_PARTS = ("bag_terms", "bag_counts", "bag_offsets")


def terms(text: str, tokenizer: Tokenizer) -> list[str]:
    """Returns the words of a text that are counted, and its pairs of adjacent words, each with a space between."""
    words = counted_words(tokenizer.words(text), tokenizer)
    return [*words, *map(" ".join, pairwise(words[:_PAIRED_WORDS]))]


def counted_words(words: Sequence[str], tokenizer: Tokenizer) -> Sequence[str]:
    """Returns the words of a text that are counted."""
    if tokenizer.kind != "words":
        return words
    return [word for word in words if len(word) > 1 or is_character(word)]


def names(keys: np.ndarray, words: Sequence[str]) -> list[str]:
    """Returns terms in writing.

    Args:
        keys: int64[V].
        words: by their numbers.
    """
    first, last = (keys >> _SHIFT) - 1, keys & ((1 << _SHIFT) - 1)
    pairs = zip(first.tolist(), last.tolist(), strict=True)
    return [words[last] if first < 0 else f"{words[first]} {words[last]}" for first, last in pairs]


def _keys(numbers: np.ndarray) -> np.ndarray:
    """Returns the keys of the terms of a text, int64, from the numbers of its words, int32."""
    words = numbers.astype(np.int64)
    first = words[:_PAIRED_WORDS]
    return np.concatenate([words, (first[:-1] + 1 << _SHIFT) + first[1:]])


class BagSpool:
    """The bags of N rows on disk, words numbered in the order in which they first occur."""

    def __init__(self, folder: Path) -> None:
        """Opens files without names in a folder: they are gone with the process, however that ends."""
        self._terms, self._counts = (TemporaryFile(dir=folder) for _ in range(2))  # noqa: SIM115 - as long as the spool
        self._sizes = array("q")

    def add(self, words: Sequence[str], counter: WordCounter) -> None:
        """Adds a row: the words of a text, which `counter` numbers."""
        keys, counts = np.unique(_keys(counter.number(words)), return_counts=True)
        self._terms.write(keys.tobytes())
        self._counts.write(counts.astype(np.int32).tobytes())
        self._sizes.append(len(keys))

    def blocks(self, keep: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields blocks of the rows where bool[N] is true: their sizes, their keys in a row, how often each occurs."""
        sizes = np.array(self._sizes, np.int64)
        offsets, total = offsets_of(sizes), int(sizes.sum())
        keys, counts = _mapped(self._terms, total, np.int64), _mapped(self._counts, total, np.int32)
        for rows in blocks_of(offsets, _BLOCK):
            block, kept = slice(offsets[rows.start], offsets[rows.stop]), keep[rows]
            inside = np.repeat(kept, sizes[rows])
            yield sizes[rows][kept], keys[block][inside], counts[block][inside]

    def chosen(self, keep: np.ndarray, terms: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields what `blocks` yields of the terms with the keys int64[V]; for a key, its place among these, int32."""
        with_end = np.append(terms, -1)  # the place of a key behind the last has none
        for rows, keys, counts in self.blocks(keep):
            places = np.searchsorted(terms, keys)
            known = with_end[places] == keys
            sizes = np.bincount(np.repeat(np.arange(len(rows)), rows)[known], minlength=len(rows))
            yield sizes, places[known].astype(np.int32), counts[known]

    def close(self) -> None:
        """Closes the files."""
        self._terms.close()
        self._counts.close()


def choose_terms(spool: BagSpool, in_training: np.ndarray) -> np.ndarray:
    """Returns the keys, int64, ascending, of the terms that at least two of the rows where bool[N] is true have.

    Most pairs are of one document. They are left out by a table of fixed size, which counts terms that share a slot
    together, so that memory holds the others alone, each once.
    """
    documents = np.zeros(_SLOTS, np.int32)
    for _, keys, _ in spool.blocks(in_training):
        np.add.at(documents, _slots(keys), 1)
    terms = counts = np.zeros(0, np.int64)
    for _, keys, _ in spool.blocks(in_training):
        repeated, times = np.unique(keys[documents[_slots(keys)] >= LEAST_DOCUMENTS], return_counts=True)
        known, (terms, places) = len(terms), np.unique(np.concatenate([terms, repeated]), return_inverse=True)
        counts, before = np.zeros(len(terms), np.int64), counts
        counts[places[:known]] = before
        counts[places[known:]] += times
    return np.asarray(terms[counts >= LEAST_DOCUMENTS])


def _slots(keys: np.ndarray) -> np.ndarray:
    """Distributes keys evenly over the slots of a table: the high bits of a product with an odd constant."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(64 - _SLOTS.bit_length() + 1)).astype(np.int64)


def write(folder: Path, spool: BagSpool, keep: np.ndarray, terms: np.ndarray) -> None:
    """Writes the bags of a split into its folder, a block of rows at a time.

    Args:
        folder: of the split.
        spool: the bags of N rows.
        keep: bool[N], true for the rows of the split.
        terms: int64[V], keys of the terms.
    """
    all_sizes = [np.zeros(0, np.int64)]
    with ExitStack() as stack:
        columns, counts = (stack.enter_context(appending(folder / f"{name}.npy", np.int32)) for name in _PARTS[:2])
        for sizes, *of_block in spool.chosen(keep, terms):
            columns(of_block[0])
            counts(of_block[1])
            all_sizes.append(sizes)
    np.save(folder / f"{_PARTS[2]}.npy", offsets_of(np.concatenate(all_sizes)))


def read(folder: Path, num_terms: int, mapped: bool) -> csr_matrix:
    """Reads what `write` wrote, int32[N, num_terms]; mapped, the arrays are views of the files."""

    columns, counts, offsets = (array_file.read(folder / f"{part}.npy", mapped=mapped) for part in _PARTS)
    return csr_matrix((counts, columns, offsets), (len(offsets) - 1, num_terms), copy=False)


def _mapped(file: IO[bytes], size: int, dtype: type) -> np.ndarray:
    file.flush()
    # An empty file cannot be mapped.
    return np.asarray(np.memmap(file, dtype, mode="r")) if size else np.zeros(0, dtype)
