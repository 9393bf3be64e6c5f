"""Shapes of corpora and of the model that is trained on them, and documents of that shape: NumPy only."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# More documents than this are not made: lengths and labels repeat.
_MOST = 12_000


@dataclass(frozen=True)
class Shape:
    """A corpus as in docs/corpora.md, and the sizes of the paper's model."""

    num_documents: int
    """Of training."""
    num_labels: int
    """L."""
    labels_per_document: float
    mean_words: float
    """Words a document before the cut at `max_words`."""
    spread: float
    """Standard deviation of the logarithm of a document's length."""
    vocabulary: int
    step_words: int
    """T of one training step: the length bucket that a document of the mean length is in."""
    max_words: int = 500
    embedding: int = 300
    """E."""
    hidden: int = 256
    """H."""
    feature: int = 300
    """D."""
    batch: int = 40
    """B."""


SHAPES = {
    "aapd": Shape(54_840, 54, 2.41, 163.42, 0.5, 69_399, 192),
    # The public copy, which lacks stop words.
    "rcv1": Shape(23_149, 102, 3.18, 138.19, 0.78, 79_412, 192),
    "eurlex": Shape(11_585, 3_956, 5.32, 1225.20, 0.9, 171_120, 500),
    # Label spaces as large as those of Wiki10-31K, LF-Amazon-131K and Amazon-670K; texts as in EUR-Lex.
    "30k": Shape(14_146, 30_000, 5.32, 1225.20, 0.9, 171_120, 500),
    "131k": Shape(294_805, 131_000, 5.32, 1225.20, 0.9, 171_120, 500),
    "670k": Shape(490_449, 670_000, 5.32, 1225.20, 0.9, 171_120, 500),
    # To try the benchmarks out.
    "tiny": Shape(60, 30, 2.0, 10, 0.5, 50, 12, max_words=16, embedding=6, hidden=5, feature=4, batch=8),
}


class Documents(NamedTuple):
    """Documents as ragged arrays: words[offsets[i]:offsets[i + 1]] are those of document i, labels likewise."""

    words: np.ndarray
    """int32, from 2 on: 0 is padding."""
    word_offsets: np.ndarray
    labels: np.ndarray
    """int32, each once in a document, in order."""
    label_offsets: np.ndarray
    scale: float
    """Documents of the corpus for each one here."""

    def __len__(self) -> int:
        return len(self.word_offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Words of each document."""
        return np.diff(self.word_offsets)

    def padded(self, rows: np.ndarray, num_words: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns int64[B, T] words, cut and padded to `num_words` or the longest of them, and int64[B] lengths."""
        lengths = np.minimum(self.lengths[rows], num_words or self.lengths.max())
        words = np.zeros((len(rows), num_words or lengths.max()), np.int64)
        for row, (document, length) in enumerate(zip(rows, lengths, strict=True)):
            start = self.word_offsets[document]
            words[row, :length] = self.words[start : start + length]
        return words, lengths

    def pairs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns int64[P] places in `rows` and int64[P] labels of the positive pairs."""
        own = [self.labels[self.label_offsets[row] : self.label_offsets[row + 1]] for row in rows]
        return np.repeat(np.arange(len(rows)), [len(x) for x in own]), np.concatenate(own).astype(np.int64)


def documents(shape: Shape, seed: int) -> Documents:
    """Makes documents: log-normal lengths, random words, labels whose frequency falls with their rank."""
    random = np.random.default_rng(seed)
    number = min(shape.num_documents, _MOST)
    median = shape.mean_words / np.exp(shape.spread**2 / 2)
    lengths = np.clip(random.lognormal(np.log(median), shape.spread, number), 4, shape.max_words).astype(np.int64)
    share = np.cumsum((np.arange(shape.num_labels) + 10.0) ** -1.1)
    wanted = np.maximum(random.poisson(shape.labels_per_document, number), 1)
    drawn = np.searchsorted(share / share[-1], random.random(wanted.sum()))
    own = [np.unique(x) for x in np.split(drawn, np.cumsum(wanted)[:-1])]
    return Documents(
        words=random.integers(2, shape.vocabulary, lengths.sum()).astype(np.int32),
        word_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=np.concatenate(own).astype(np.int32),
        label_offsets=np.concatenate([[0], np.cumsum([len(x) for x in own])]),
        scale=shape.num_documents / number,
    )


def step_rows(made: Documents, shape: Shape, length: int | None = None) -> np.ndarray:
    """Returns a batch of documents whose lengths end in the bucket of `length` words: at most that, 3/4 at least.

    Texts so close to the padded length let neither side win by how it treats padding.
    """
    length = length or shape.step_words
    fitting = np.flatnonzero((made.lengths <= length) & (made.lengths >= 0.75 * length))
    return np.random.default_rng(0).choice(fitting, shape.batch, replace=len(fitting) < shape.batch)


def few(shape: Shape) -> int:
    """Returns the number of documents that stand for all where each is quick."""
    return min(shape.num_documents, 8 * shape.batch)


def predicted(shape: Shape) -> int:
    """Returns the number of documents to predict where every label is scored: fewer, the more labels there are."""
    return min(shape.num_documents, (3 if shape.num_labels > 1_000 else 16) * shape.batch)
