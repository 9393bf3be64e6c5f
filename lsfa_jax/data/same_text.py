"""Rows with the same text: which of them are one document, and which documents a drawn split keeps on one side.

A row is remembered in a few numbers: a digest of its words, its labels, a hash of its id.
"""

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.tokenizer import Tokenizer

_DIGEST_SIZE = 16
_NO_WORDS = bytes(_DIGEST_SIZE)


def digest(text: str, words: Sequence[str], max_words: int, tokenizer: Tokenizer) -> bytes:
    """Returns 16 bytes that are equal for texts with the same words; zeros for a text without a word.

    Args:
        text: a text.
        words: its first `max_words` words.
        max_words: where a text may be longer, the complete text counts, lower-cased and without spaces.
        tokenizer: of the words.
    """
    if not words:
        return _NO_WORDS
    if len(words) < max_words:
        content = " ".join(words).encode("utf-8", "surrogatepass")
    else:
        # Deleting spaces takes a sixth of the time of splitting there.
        content = tokenizer.normalised(text).lower().encode("utf-8", "surrogatepass").translate(None, b" \t\n\r\v\f")
    return blake2b(content, digest_size=_DIGEST_SIZE).digest()


class Documents(NamedTuple):
    """The documents among N rows."""

    is_first: np.ndarray
    """bool[N], true for the first row of each document."""
    labels: Ragged
    """int32, the labels of each row's document, in the order of its rows; empty for rows behind the first."""


class Rows:
    """What is kept of the rows of one source."""

    def __init__(self, tokenizer: Tokenizer, max_words: int, label_ids: dict[str, int] | None = None) -> None:
        """Starts without a row.

        Args:
            tokenizer: of the words that texts are compared by.
            max_words: see `digest`.
            label_ids: the number of each label; new labels are added.
        """
        self.label_ids = {} if label_ids is None else label_ids
        self._tokenizer, self._max_words = tokenizer, max_words
        self._digests = bytearray()
        self._labels, self._sizes, self._ids = array("i"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, document: Document, words: Sequence[str] | None = None) -> None:
        """Adds a row; `words` are its first `max_words` words, where they are known."""
        if words is None:
            words = self._tokenizer.first_words(document.text, self._max_words)
        self._digests += digest(document.text, words, self._max_words, self._tokenizer)
        ids = self.label_ids
        self._labels.extend(ids.setdefault(label, len(ids)) for label in document.labels)
        self._sizes.append(len(document.labels))
        self._ids.append(hash(document.id) if document.id else 0)

    @property
    def digests(self) -> np.ndarray:
        """uint64[N, 2]."""
        return np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)

    def documents(self) -> Documents:
        """Merges rows that are one document.

        Where no row has more than one label, rows with the same text and different labels are one document with the
        labels of all; and so are rows with the same text and the same id. Where a row has several labels, each row is
        a document.
        """
        sizes = np.array(self._sizes, np.int64)
        labels = Ragged.from_sizes(np.array(self._labels, np.int32), sizes)
        same_text = same_texts(self.digests)
        rows = np.arange(len(sizes))
        if sizes.max(initial=0) > 1 or (same_text == rows).all():
            return Documents(np.ones(len(sizes), bool), labels)
        label = np.full(len(sizes), -1, np.int64)
        label[sizes == 1] = labels.values
        several = np.zeros(len(sizes), bool)
        several[same_text[label != label[same_text]]] = True
        ids = np.array(self._ids, np.int64)
        # Rows without an id differ by their number.
        same_id = _first_rows(np.stack([same_text, np.where(ids == 0, rows, ids), ids == 0], axis=1))
        first = np.where(several[same_text], same_text, same_id)
        order = np.argsort(first, kind="stable")
        order = order[label[order] >= 0]
        # Of the labels of a document, each once, where it is first.
        order = order[_first_rows(np.stack([first[order], label[order]], axis=1)) == np.arange(len(order))]
        return Documents(
            first == rows,
            Ragged.from_sizes(label[order].astype(np.int32), np.bincount(first[order], minlength=len(rows))),
        )


def same_texts(digests: np.ndarray) -> np.ndarray:
    """Returns int64[N], the index of the first row with the text of each; texts without a word differ from all."""
    return np.where(digests.any(axis=1), _first_rows(digests), np.arange(len(digests)))


def _first_rows(keys: np.ndarray) -> np.ndarray:
    """Returns int64[N], the index of the first row that equals each row of int[N, C]."""
    if not len(keys):
        return np.zeros(0, np.int64)
    order = np.lexsort(keys.T)  # stable: equal rows stay in their order
    starts = np.concatenate([[True], (keys[order[1:]] != keys[order[:-1]]).any(axis=1)])
    first = np.empty(len(keys), np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def in_both(texts: np.ndarray, train: np.ndarray) -> int:
    """Counts the rows of uint64[N, 2] digests that are among uint64[M, 2] of training; texts without a word are not."""
    first = same_texts(np.concatenate([train, texts]))
    return int((first[len(train) :] < len(train)).sum())
