"""Synthetic long-tailed corpora of any size from a seed: the embedded default, and measurements at any scale.

Labels are long-tailed and each occurs in training. A rare label often comes with its frequent parent, as "Neptune"
comes with "astronomy". A third of the words depend on the labels, as seen from one of a few angles that all labels
share: the variation within a frequent label is that within a rare one, and LSFA transfers it. The other words follow
Zipf's law. Documents are drawn in blocks.

In the embedded corpus, half of each text is a quotation between two marks, whose words depend on a label that the
document does not have: a model that counts words is misled, and one that reads them in order is not.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import zstandard

from lsfa_jax.data.reading.documents import Document
from lsfa_jax.util import atomic, console
from lsfa_jax.util.console import UserError
from lsfa_jax.util.random_streams import Stream, stream

FORMAT = 3
"""Increased when the same shape and seed give other documents."""

_BLOCK = 1024
_NUM_ANGLES = 6
_WORDS_PER_LABEL = 12
_WORDS_PER_ANGLE = 20
# Share of a document's words that depend on its labels.
_ABOUT_LABEL = 0.35
_SHORTEST = 3
_MARKS = ("quote", "unquote")
# A large prime: the words of neighbouring labels are far apart.
_STEP = 2_147_483_647


@dataclass(frozen=True)
class Shape:
    """Sizes of a synthetic corpus, in the terms of the paper's Table 1."""

    num_train: int
    num_test: int
    num_labels: int
    """L, at most `num_train * labels_per_document`, so that each can occur in training."""
    labels_per_document: float
    """L_avg; at least one."""
    train_length: float
    """W_trn, words a document on average."""
    test_length: float
    """W_tst."""
    vocabulary: int
    """Distinct words of the language; a small corpus does not use them all."""
    length_spread: float = 0.5
    """Standard deviation of the logarithm of a text's length."""
    flat: float = 10.0
    """The label of rank r is drawn in proportion to (r + flat) ** -steep."""
    steep: float = 1.1
    about_angle: float = 0.1
    """Share of a document's words that depend on its angle alone."""
    all_parents: bool = False
    """Whether every rare label brings its parent along, beyond L_avg; else the first label does, within it."""
    quotes: bool = False
    """Whether half of each text is a quotation, whose words depend on another label."""


SHAPES = {
    "synthetic": Shape(
        2_400,
        2_000,
        60,
        2.4,
        40.0,
        40.0,
        1_440,
        0.15,
        flat=0.0,
        steep=1.2,
        about_angle=0.25,
        all_parents=True,
        quotes=True,
    ),
    "synthetic-aapd": Shape(54_840, 1_000, 54, 2.41, 163.42, 171.65, 69_399, flat=1.0, steep=0.9),
    "synthetic-rcv1": Shape(23_149, 781_265, 103, 3.18, 259.47, 269.23, 47_236, 0.7, flat=14.0, steep=3.5),
    "synthetic-eurlex": Shape(11_585, 3_865, 3_956, 5.32, 1225.20, 1248.07, 171_120, 0.9),
}
"""The embedded corpus, and those of Table 1, whose label frequencies fall about as the real ones do (Figure 1a: 3 % of
EUR-Lex's labels have more than 100 documents)."""


def documents(shape: Shape, seed: int, split: str) -> Iterator[Document]:
    """Yields the documents of a split, 'train' or 'test', with labels label_0 (the most frequent), label_1, ..."""
    language = _Language(shape, stream(Stream.SYNTHETIC_LANGUAGE, seed))
    use, number = (
        (Stream.SYNTHETIC_TRAIN, shape.num_train) if split == "train" else (Stream.SYNTHETIC_TEST, shape.num_test)
    )
    for block, start in enumerate(range(0, number, _BLOCK)):
        yield from language.documents(stream(use, seed, block), start, min(_BLOCK, number - start), split)


Compression = Literal["zst", "gz", "none"]


def write(shape: Shape, seed: int, folder: Path, compression: Compression) -> list[Path]:
    """Writes the documents as JSON Lines, a file for each split that has any, and returns the files.

    Raises:
        UserError: the shape is impossible, or the folder has such a file already or cannot be written.
    """
    check_shape(shape)
    suffix = ".jsonl" if compression == "none" else f".jsonl.{compression}"
    numbers = {"train": shape.num_train, "test": shape.num_test}
    files = {folder / f"{split}{suffix}": split for split in numbers if numbers[split]}
    if present := next((path for split in numbers for path in folder.glob(f"{split}.*")), None):
        raise UserError(f"{present}: exists already; remove it, or name another folder")
    for path, split in files.items():
        with (
            atomic.replacing(path, "make room, or name another folder") as partial,
            _compressed(partial, compression) as file,
            console.progress(f"Writing {path.name}", numbers[split], unit="documents") as advance,
        ):
            for number, document in enumerate(documents(shape, seed, split), 1):
                row = {"labels": document.labels, "text": document.text}
                file.write(json.dumps(row).encode() + b"\n")
                if number % _BLOCK == 0:
                    advance(_BLOCK)
    return list(files)


@contextmanager
def _compressed(path: Path, compression: Compression) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if compression == "gz":
            # Without a time stamp, equal documents give equal bytes.
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=4, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        elif compression == "zst":
            with zstandard.ZstdCompressor(level=3).stream_writer(raw) as stream:
                yield stream  # type: ignore[misc]
        else:
            yield raw


def check_shape(shape: Shape) -> None:
    """Raises UserError where no corpus can have the shape."""
    if shape.num_labels > shape.num_train * shape.labels_per_document:
        raise UserError(
            f"{shape.num_labels:,} labels cannot each occur in {shape.num_train:,} documents with "
            f"{shape.labels_per_document:g} labels each; raise the number of documents"
        )


class _Language:
    """The distributions of labels and words that all documents share."""

    def __init__(self, shape: Shape, random: np.random.Generator) -> None:
        self.shape = shape
        num_labels = shape.num_labels
        share = (np.arange(1, num_labels + 1) + shape.flat) ** -shape.steep
        self.cumulative = np.cumsum(share) / share.sum()
        self.num_frequent = max(1, num_labels // 3)
        self.parent = random.integers(self.num_frequent, size=num_labels)
        # In this order labels are assigned to the training documents, so that each occurs.
        self.assigned = random.permutation(num_labels)
        # Each angle prefers certain words of a label, at the same positions in every label.
        preference = random.dirichlet(np.full(_WORDS_PER_LABEL, 0.3), size=_NUM_ANGLES)
        self.preference = np.cumsum(preference, axis=1)
        self.label_words = max(1, min(num_labels * _WORDS_PER_LABEL, shape.vocabulary // 2))
        self.angle_words = min(_NUM_ANGLES * _WORDS_PER_ANGLE, max(1, shape.vocabulary // 10))
        self.common_words = max(1, shape.vocabulary - self.label_words - self.angle_words)
        number = self.label_words + self.angle_words + self.common_words
        self.words = np.array([*(f"w{i}" for i in range(number)), *_MARKS], object)

    def documents(self, random: np.random.Generator, start: int, size: int, split: str) -> Iterator[Document]:
        """Yields `size` documents, the first of which is document `start` of its split."""
        labels, num_labels = self._labels(random, start, size, split)
        spread, mean = self.shape.length_spread, self.shape.train_length if split == "train" else self.shape.test_length
        lengths = random.lognormal(np.log(mean) - spread**2 / 2, spread, size).round().astype(np.int64)
        ends = np.cumsum(np.maximum(lengths, _SHORTEST))
        words = self.words[self._word_ids(random, labels, num_labels, np.diff(ends, prepend=0))].tolist()
        names = [[f"label_{label}" for label in row[:count]] for row, count in zip(labels, num_labels, strict=True)]
        begin = 0
        for end, document_labels in zip(ends.tolist(), names, strict=True):
            yield Document(" ".join(words[begin:end]), tuple(document_labels))
            begin = end

    def _labels(self, random: np.random.Generator, start: int, size: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Draws int64[size, K], each document's labels at the start of its row, and int64[size], their number."""
        shape = self.shape
        num_labels = 1 + random.poisson(max(0.0, shape.labels_per_document - 1), size)
        assigned = np.zeros((size, 0), np.int64)
        if split == "train":
            # Document i gets the labels from i * L / N on; -1 where those are fewer than another document's.
            bounds = (np.arange(start, start + size + 1) * shape.num_labels) // shape.num_train
            columns = bounds[:-1, None] + np.arange(np.diff(bounds).max())
            assigned = self.assigned[np.minimum(columns, shape.num_labels - 1)]
            assigned = np.where(columns < bounds[1:, None], assigned, -1)
            num_labels = np.maximum(num_labels, np.diff(bounds))
        num_labels = np.minimum(num_labels, shape.num_labels)
        drawn = np.searchsorted(self.cumulative, random.random((size, 3 * int(num_labels.max()) + 8)))
        drawn = np.minimum(drawn, shape.num_labels - 1)
        first = np.where(assigned[:, :1] >= 0, assigned[:, :1], drawn[:, :1]) if assigned.size else drawn[:, :1]
        parent = np.full_like(first, -1) if shape.all_parents else self._parents(first)
        candidates = np.concatenate([assigned, drawn[:, :1], parent, drawn[:, 1:]], axis=1)
        chosen = (candidates >= 0) & _first_in_row(candidates)
        chosen &= np.cumsum(chosen, axis=1) <= num_labels[:, None]
        if shape.all_parents:
            candidates = np.where(chosen, candidates, -1)
            candidates = np.concatenate([candidates, self._parents(candidates)], axis=1)
            chosen = (candidates >= 0) & _first_in_row(candidates)
        # The chosen ones to the front, in their order.
        num_labels = chosen.sum(axis=1)
        order = np.argsort(~chosen, axis=1, kind="stable")[:, : int(num_labels.max())]
        return np.take_along_axis(candidates, order, axis=1), num_labels

    def _parents(self, labels: np.ndarray) -> np.ndarray:
        """Returns the parent of each rare label; -1 for others."""
        return np.where(labels >= self.num_frequent, self.parent[labels], -1)

    def _word_ids(
        self, random: np.random.Generator, labels: np.ndarray, num_labels: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Draws int64[sum of lengths], the words of documents with the given labels, one document after another."""
        document = np.repeat(np.arange(len(lengths)), lengths)
        angle = random.integers(_NUM_ANGLES, size=len(lengths))
        kind = random.random(len(document))
        # Log-uniform ranks: Zipf's law without a table.
        ids = np.exp(random.random(len(document)) * np.log(self.common_words + 1)).astype(np.int64) - 1
        ids = np.minimum(ids, self.common_words - 1) + self.label_words + self.angle_words

        about_angle = np.flatnonzero(kind < _ABOUT_LABEL + self.shape.about_angle)
        word = random.integers(_WORDS_PER_ANGLE, size=len(about_angle))
        word += angle[document[about_angle]] * _WORDS_PER_ANGLE
        ids[about_angle] = self.label_words + word % self.angle_words

        about_label = np.flatnonzero(kind < _ABOUT_LABEL)
        of = document[about_label]
        label = labels[of, (random.random(len(of)) * num_labels[of]).astype(np.int64)]
        if self.shape.quotes:
            begin, end = _quotations(random, lengths)
            other = random.integers(self.shape.num_labels, size=len(lengths))
            is_quoted = (begin[of] < about_label) & (about_label < end[of])
            label = np.where(is_quoted, other[of], label)
        position = (random.random(len(of))[:, None] > self.preference[angle[of], :-1]).sum(axis=1)
        # Where the vocabulary is too small, labels share words, but hardly two labels the same twelve.
        separate = self.label_words == self.shape.num_labels * _WORDS_PER_LABEL
        ids[about_label] = (label * _WORDS_PER_LABEL + position) * (1 if separate else _STEP) % self.label_words
        if self.shape.quotes:
            ids[begin], ids[end] = len(self.words) - 2, len(self.words) - 1
        return ids


def _quotations(random: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws int64[documents], the places of the first and the last word of half of each document."""
    sizes = np.maximum(lengths // 2, len(_MARKS))
    begin = np.cumsum(lengths) - lengths + (random.random(len(lengths)) * (lengths - sizes + 1)).astype(np.int64)
    return begin, begin + sizes - 1


def _first_in_row(values: np.ndarray) -> np.ndarray:
    """Marks the entries that occur for the first time in their row, bool like `values`."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    first = np.ones(values.shape, bool)
    first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    out = np.empty_like(first)
    np.put_along_axis(out, order, first, axis=1)
    return out
