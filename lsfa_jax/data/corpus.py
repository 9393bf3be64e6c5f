"""A corpus as integers: three splits of word ids and label ids."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data import vocabulary
from lsfa_jax.data.pieces import Pieces
from lsfa_jax.data.ragged import Ragged


@dataclass(frozen=True)
class Split:
    """N documents as token ids and label ids."""

    words: Ragged
    """int32, the ids of each document's words, or word pieces."""
    labels: Ragged
    """int32, the label ids of each document, each once."""
    bags: csr_matrix | None = field(default=None, repr=False)
    """int32[N, terms], how often each of `Corpus.bag_terms` occurs in each text."""
    excluded: Ragged | None = None
    """int32, labels that are neither predicted for each document nor counted; None where there are none."""
    digests: np.ndarray | None = field(default=None, repr=False)
    """uint64[N, 2], of the texts (`same_text.digest`); None where they are not known."""

    kind: ClassVar[str] = "words"
    """What a batch holds of the documents: one of its fields."""

    @property
    def tokens(self) -> Ragged:
        """The words."""
        return self.words

    def num_rows(self, num_tokens: int) -> int:
        """Rows that a batch has for a document, padded to a number of tokens."""
        return num_tokens

    def __len__(self) -> int:
        return self.words.num_rows

    @property
    def lengths(self) -> np.ndarray:
        """int64[N], words of each document."""
        return self.words.sizes

    def take(self, rows: np.ndarray) -> "Split":
        """Gathers documents in the given order."""
        excluded = None if self.excluded is None else self.excluded.take(rows)
        bags = None if self.bags is None else self.bags[rows]
        digests = None if self.digests is None else self.digests[rows]
        return Split(self.words.take(rows), self.labels.take(rows), bags, excluded, digests)


@dataclass(frozen=True)
class EncodedSplit:
    """N documents as token states, which an encoder computed before, and label ids."""

    states: Ragged
    """float [all tokens, 2H], the token states of each document."""
    labels: Ragged
    """int32, the label ids of each document, each once."""

    kind: ClassVar[str] = "states"

    @property
    def tokens(self) -> Ragged:
        """The states."""
        return self.states

    def num_rows(self, num_tokens: int) -> int:
        """Rows that a batch has for a document, padded to a number of tokens."""
        return num_tokens

    def __len__(self) -> int:
        return self.states.num_rows

    @property
    def lengths(self) -> np.ndarray:
        """int64[N], tokens of each document."""
        return self.states.sizes


@dataclass(frozen=True)
class HiddenSplit:
    """N documents as hidden states of an encoder's frozen layers, and label ids."""

    hidden: Ragged
    """float [all rows, H], the hidden states of each document."""
    labels: Ragged
    """int32, the label ids of each document, each once."""
    lengths: np.ndarray
    """int64[N], tokens of each document."""
    hidden_rows: Callable[[np.ndarray], np.ndarray]
    """Returns the rows of hidden states of documents of the given lengths."""

    kind: ClassVar[str] = "hidden"

    @property
    def tokens(self) -> Ragged:
        """The hidden states."""
        return self.hidden

    def num_rows(self, num_tokens: int) -> int:
        """Rows that a batch has for a document, padded to a number of tokens."""
        return int(self.hidden_rows(np.array(num_tokens)))

    def __len__(self) -> int:
        return self.hidden.num_rows


AnySplit = Split | EncodedSplit | HiddenSplit
"""Documents in one of three forms: what the encoder reads, what its trained layers read, what labels attend to."""


@dataclass(frozen=True)
class Corpus:
    """Three splits that share words and labels."""

    name: str
    train: Split
    validation: Split
    test: Split
    words: list[str]
    """The vocabulary; word i has the id `vocabulary.NUM_SPECIAL + i`. Empty where texts are word pieces."""
    labels: list[str]
    """Label names: first the `num_labels` that training has, most frequent first, then those only seen elsewhere."""
    num_labels: int
    """L, the labels that the model knows."""
    published_counts: np.ndarray = field(repr=False)
    """int64[len(labels)], documents of each label in the published training split, held-out ones included."""
    published_documents: int = 0
    """Documents of the published training split, held-out ones included: N of the propensities."""
    published_words: int = 0
    """Words of those documents, before texts are cut."""
    test_words: int = 0
    """Words of the test documents, before texts are cut."""
    bag_terms: list[str] = field(default_factory=list, repr=False)
    """The words, and pairs of adjacent words, that bags count."""
    pieces: Pieces | None = field(default=None, repr=False)
    """The vocabulary where texts are word pieces of a pretrained encoder."""

    @property
    def tokenizer(self) -> str:
        """The tokenizer of word pieces as JSON; "" where texts are words."""
        return self.pieces.content if self.pieces else ""

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table."""
        return self.pieces.size if self.pieces else vocabulary.NUM_SPECIAL + len(self.words)

    @property
    def label_counts(self) -> np.ndarray:
        """int64[L], n^l, documents of each label in `train`."""
        return np.bincount(self.train.labels.values, minlength=self.num_labels)
