"""A corpus as integers: ragged word ids, sparse labels, three splits, statistics."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lsfa_jax.console import UserError, note, warn
from lsfa_jax.data import vocabulary
from lsfa_jax.data.readers import Document
from lsfa_jax.metrics import LabelSets

# What of a label's documents stays in training at least when validation documents are held out.
_SHARE_KEPT = 0.5


@dataclass(frozen=True)
class Split:
    """Documents as word ids and label ids, both ragged.

    Document i has the words `words[word_offsets[i]:word_offsets[i + 1]]` and the labels of `labels` likewise.
    """

    words: np.ndarray
    """int32[all words], ids."""
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

    @property
    def vocabulary_size(self) -> int:
        """Rows of the word vector table."""
        return vocabulary.NUM_SPECIAL + len(self.words)

    @property
    def label_counts(self) -> np.ndarray:
        """int64[L], n^l, documents of each label in `train`."""
        return np.bincount(self.train.labels.indices, minlength=self.num_labels)


def build(
    name: str,
    train: Iterable[Document],
    test: Iterable[Document],
    validation: Iterable[Document] | None,
    *,
    max_words: int,
    max_vocabulary: int,
    validation_fraction: float,
    seed: int,
) -> Corpus:
    """Reads documents once and makes a corpus of them.

    Words are chosen from the training documents alone, after validation documents have been held out. Training
    documents without a word teach nothing and are left out, with a line that says how many.

    Raises:
        UserError: no training document has both a word and a label.
    """
    counter = vocabulary.WordCounter()

    def read(documents: Iterable[Document]) -> tuple[list[np.ndarray], list[tuple[str, ...]]]:
        texts, label_sets = [], []
        for document in documents:
            texts.append(counter.encode(document.text, max_words))
            label_sets.append(document.labels)
        return texts, label_sets

    texts, label_sets = read(train)
    empty = sum(not len(text) for text in texts)
    if empty:
        warn(f"{empty:,} training documents have no word and are left out")
        label_sets = [labels for labels, text in zip(label_sets, texts, strict=True) if len(text)]
        texts = [text for text in texts if len(text)]
    labels = vocabulary.label_order(label_sets)
    if not labels:
        raise UserError(f"{name}: no training document has both a word and a label, so there is nothing to learn")
    published_documents = len(texts)
    seen_texts, seen_labels = read(validation) if validation is not None else ([], [])
    test_texts, test_labels = read(test)

    label_ids = {label: i for i, label in enumerate(labels)}
    num_labels = len(labels)

    def add_labels(label_sets: list[tuple[str, ...]], split: str) -> None:
        unseen: dict[str, None] = {}
        for label in (label for one in label_sets for label in one if label not in label_ids):
            unseen[label] = None
        for label in unseen:
            label_ids[label] = len(label_ids)
        if unseen:
            example = next(iter(unseen))
            note(f"Labels of {split} that training lacks, counted, never predicted: {len(unseen):,} (e.g. {example!r})")

    add_labels(seen_labels, "validation")
    add_labels(test_labels, "test")

    def split(texts: list[np.ndarray], label_sets: list[tuple[str, ...]]) -> Split:
        ids = [np.fromiter((label_ids[label] for label in one), np.int32) for one in label_sets]
        return Split(*_ragged(texts), LabelSets(*_ragged(ids)))

    whole = split(texts, label_sets)
    published_counts = np.bincount(whole.labels.indices, minlength=len(label_ids))
    if validation is None:
        held_out = hold_out(whole.labels, num_labels, validation_fraction, seed)
        train_split, validation_split = whole.take(np.flatnonzero(~held_out)), whole.take(np.flatnonzero(held_out))
    else:
        train_split, validation_split = whole, split(seen_texts, seen_labels)
    test_split = split(test_texts, test_labels)

    counts = np.bincount(train_split.words, minlength=len(counter.ids))
    words, final = counter.most_frequent(counts, max_vocabulary)

    def renumbered(part: Split) -> Split:
        return Split(final[part.words], part.word_offsets, part.labels)

    return Corpus(
        name=name,
        train=renumbered(train_split),
        validation=renumbered(validation_split),
        test=renumbered(test_split),
        words=words,
        labels=list(label_ids),
        num_labels=num_labels,
        published_counts=published_counts,
        published_documents=published_documents,
    )


def _ragged(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
    return (np.concatenate(rows) if rows else np.zeros(0, np.int32)).astype(np.int32), offsets


def hold_out(labels: LabelSets, num_labels: int, fraction: float, seed: int) -> np.ndarray:
    """Chooses validation documents at random, so that each label keeps at least half of its documents in training.

    Returns:
        bool[N], true where a document is held out; fewer than `fraction` x N where rare labels forbid more.
    """
    num_documents = len(labels.offsets) - 1
    counts = np.bincount(labels.indices, minlength=num_labels)
    left, least = counts.copy(), np.maximum(1, np.ceil(counts * _SHARE_KEPT))
    wanted = min(round(fraction * num_documents), num_documents - 1)
    held_out = np.zeros(num_documents, bool)
    for row in np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(num_documents):
        if wanted == 0:
            break
        own = labels.indices[labels.offsets[row] : labels.offsets[row + 1]]
        if np.all(left[own] > least[own]):
            left[own] -= 1
            held_out[row] = True
            wanted -= 1
    if wanted > 0:
        warn(f"{wanted:,} fewer validation documents than asked for: the others carry labels too rare to spare")
    return held_out
