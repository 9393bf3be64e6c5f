"""A corpus as integers: ragged word ids, sparse labels, three splits."""

from dataclasses import dataclass, field

import numpy as np

from lsfa_jax.data import vocabulary
from lsfa_jax.evaluation.ranking import LabelSets


@dataclass(frozen=True)
class Split:
    """Documents as word ids and label ids, both ragged.

    Document i has the words `words[word_offsets[i]:word_offsets[i + 1]]` and the labels of `labels` likewise.
    """

    words: np.ndarray
    """int32[all words], ids; or float16[all words, 2H], what an encoder has made of each word."""
    word_offsets: np.ndarray
    """int64[N + 1]."""
    labels: LabelSets

    def __len__(self) -> int:
        return len(self.word_offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64[N], words of each document."""
        return np.diff(self.word_offsets)

    def take(self, rows: np.ndarray) -> "Split":
        """Returns the given documents, in the given order."""
        words, word_offsets = take_ragged(self.words, self.word_offsets, rows)
        return Split(words, word_offsets, LabelSets(*take_ragged(self.labels.indices, self.labels.offsets, rows)))


def take_ragged(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values and offsets of the given rows of a ragged array."""
    sizes = np.diff(offsets)[rows]
    new_offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    positions = np.arange(new_offsets[-1]) + np.repeat(offsets[:-1][rows] - new_offsets[:-1], sizes)
    return values[positions], new_offsets


@dataclass(frozen=True)
class Corpus:
    """Three splits that share words and labels."""

    name: str
    train: Split
    validation: Split
    test: Split
    words: list[str]
    """The vocabulary; word i has the id `vocabulary.NUM_SPECIAL + i`."""
    labels: list[str]
    """Label names: first the `num_labels` that training has, most frequent first, then those only seen elsewhere."""
    num_labels: int
    """L, the labels that the model knows."""
    published_counts: np.ndarray = field(repr=False)
    """int64[len(labels)], documents of each label in the published training split, held-out ones included."""
    published_documents: int = 0
    """Documents of the published training split, held-out ones included: N of the propensities."""
    published_words: int = 0
    """Words of those documents, whole texts."""
    test_words: int = 0
    """Words of the test documents, whole texts."""

    @property
    def vocabulary_size(self) -> int:
        """Rows of the word vector table."""
        return vocabulary.NUM_SPECIAL + len(self.words)

    @property
    def label_counts(self) -> np.ndarray:
        """int64[L], n^l, documents of each label in `train`."""
        return np.bincount(self.train.labels.indices, minlength=self.num_labels)
