"""Corpora of any size with the shape of a real one, made of nothing but a seed: for measuring at any scale.

Labels are long-tailed and each occurs in training; a rare one often brings its frequent one along. A third of the words
tell the labels, from one of a few angles that all labels share; the rest follows Zipf's law. A block of documents at a
time is drawn at once.
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

FORMAT = 1
"""Raised by one when the same shape and seed give other documents."""

_BLOCK = 1024
_NUM_ANGLES = 6
_WORDS_PER_LABEL = 12
_WORDS_PER_ANGLE = 20
# Shares of a document's words: about its labels, of its angle; the rest is common.
_ABOUT_LABEL = 0.35
_ABOUT_ANGLE = 0.1
_SHORTEST = 3
# A large prime: the words of neighbouring labels are far apart.
_STEP = 2_147_483_647


@dataclass(frozen=True)
class Shape:
    """What a generated corpus looks like; figures as in the paper's Table 1."""

    num_train: int
    num_test: int
    num_labels: int
    """L, at most `num_train * labels_per_document`, so that each can occur in training."""
    labels_per_document: float
    """L_avg; one at least."""
    train_length: float
    """W_trn, words a document on average."""
    test_length: float
    """W_tst."""
    vocabulary: int
    """Distinct words that there are; a small corpus does not use them all."""
    length_spread: float = 0.5
    """Standard deviation of the logarithm of a text's length."""
    flat: float = 10.0
    """The label of rank r is drawn in proportion to (r + flat) ** -steep."""
    steep: float = 1.1


SHAPES = {
    "synthetic-aapd": Shape(54_840, 1_000, 54, 2.41, 163.42, 171.65, 69_399, flat=1.0, steep=0.9),
    "synthetic-rcv1": Shape(23_149, 781_265, 103, 3.18, 259.47, 269.23, 47_236, 0.7, flat=14.0, steep=3.5),
    "synthetic-eurlex": Shape(11_585, 3_865, 3_956, 5.32, 1225.20, 1248.07, 171_120, 0.9),
}
"""Table 1; label frequencies fall about as the real ones do (Figure 1a: 3 % of EUR-Lex's labels have more than 100)."""


def documents(shape: Shape, seed: int, split: str) -> Iterator[Document]:
    """Makes the documents of a split, 'train' or 'test'. Labels are named label_0 (the most frequent), label_1, ..."""
    language = np.random.Generator(np.random.Philox(key=[seed, 0]))
    generator = _Generator(shape, language)
    number = shape.num_train if split == "train" else shape.num_test
    for start in range(0, number, _BLOCK):
        random = np.random.Generator(np.random.Philox(key=[seed, 1 + 2 * (start // _BLOCK) + (split == "test")]))
        yield from generator.block(random, start, min(_BLOCK, number - start), split)


Compression = Literal["zst", "gz", "none"]


def write(shape: Shape, seed: int, folder: Path, compression: Compression) -> list[Path]:
    """Writes the documents as JSON Lines, train and where there are any test, and returns the files.

    Raises:
        UserError: the shape cannot be, the folder holds such a file already, or cannot be written.
    """
    check_shape(shape)
    suffix = ".jsonl" if compression == "none" else f".jsonl.{compression}"
    numbers = {"train": shape.num_train, "test": shape.num_test}
    files = {folder / f"{split}{suffix}": split for split in numbers if numbers[split]}
    for present in [path for split in numbers for path in folder.glob(f"{split}.*")]:
        raise UserError(f"{present}: is there already; remove it, or name another folder")
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
            # Without a time stamp: the same documents are the same bytes.
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
            f"{shape.labels_per_document:g} labels each; ask for more documents"
        )


class _Generator:
    """The language that the documents share."""

    def __init__(self, shape: Shape, random: np.random.Generator) -> None:
        self.shape = shape
        num_labels = shape.num_labels
        share = (np.arange(1, num_labels + 1) + shape.flat) ** -shape.steep
        self.cumulative = np.cumsum(share) / share.sum()
        self.num_frequent = max(1, num_labels // 3)
        self.parent = random.integers(self.num_frequent, size=num_labels)
        # In this order labels are dealt to the training documents, so that each occurs.
        self.dealt = random.permutation(num_labels)
        # Each angle prefers some of a label's words, the same positions in every label.
        preference = random.dirichlet(np.full(_WORDS_PER_LABEL, 0.3), size=_NUM_ANGLES)
        self.preference = np.cumsum(preference, axis=1)
        self.label_words = max(1, min(num_labels * _WORDS_PER_LABEL, shape.vocabulary // 2))
        self.angle_words = min(_NUM_ANGLES * _WORDS_PER_ANGLE, max(1, shape.vocabulary // 10))
        self.common_words = max(1, shape.vocabulary - self.label_words - self.angle_words)
        self.words = np.array([f"w{i}" for i in range(self.label_words + self.angle_words + self.common_words)], object)

    def block(self, random: np.random.Generator, start: int, size: int, split: str) -> Iterator[Document]:
        labels, num_labels = self._labels(random, start, size, split)
        spread, mean = self.shape.length_spread, self.shape.train_length if split == "train" else self.shape.test_length
        lengths = random.lognormal(np.log(mean) - spread**2 / 2, spread, size).round().astype(np.int64)
        ends = np.cumsum(np.maximum(lengths, _SHORTEST))
        words = self.words[self._word_ids(random, labels, num_labels, np.diff(ends, prepend=0))].tolist()
        names = [[f"label_{label}" for label in row[:count]] for row, count in zip(labels, num_labels, strict=True)]
        begin = 0
        for end, own in zip(ends.tolist(), names, strict=True):
            yield Document(" ".join(words[begin:end]), tuple(own))
            begin = end

    def _labels(self, random: np.random.Generator, start: int, size: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Draws int64[size, K], each document's labels first in its row, and int64[size], how many they are."""
        shape = self.shape
        wanted = 1 + random.poisson(max(0.0, shape.labels_per_document - 1), size)
        dealt = np.zeros((size, 0), np.int64)
        if split == "train":
            # Document i is dealt the labels from i * L / N on; -1 where that is fewer than another's.
            bounds = (np.arange(start, start + size + 1) * shape.num_labels) // shape.num_train
            columns = bounds[:-1, None] + np.arange(np.diff(bounds).max())
            dealt = np.where(columns < bounds[1:, None], self.dealt[np.minimum(columns, shape.num_labels - 1)], -1)
            wanted = np.maximum(wanted, np.diff(bounds))
        wanted = np.minimum(wanted, shape.num_labels)
        drawn = np.searchsorted(self.cumulative, random.random((size, 3 * int(wanted.max()) + 8)))
        drawn = np.minimum(drawn, shape.num_labels - 1)
        first = np.where(dealt[:, :1] >= 0, dealt[:, :1], drawn[:, :1]) if dealt.size else drawn[:, :1]
        parent = np.where(first >= self.num_frequent, self.parent[first], -1)
        candidates = np.concatenate([dealt, drawn[:, :1], parent, drawn[:, 1:]], axis=1)
        new = (candidates >= 0) & _first_in_row(candidates)
        new &= np.cumsum(new, axis=1) <= wanted[:, None]
        # The chosen ones come first, in their order.
        order = np.argsort(~new, axis=1, kind="stable")[:, : int(wanted.max())]
        return np.take_along_axis(candidates, order, axis=1), new.sum(axis=1)

    def _word_ids(
        self, random: np.random.Generator, labels: np.ndarray, num_labels: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        document = np.repeat(np.arange(len(lengths)), lengths)
        angle = random.integers(_NUM_ANGLES, size=len(lengths))
        kind = random.random(len(document))
        # Log-uniform ranks: Zipf's law without a table.
        ids = np.exp(random.random(len(document)) * np.log(self.common_words + 1)).astype(np.int64) - 1
        ids = np.minimum(ids, self.common_words - 1) + self.label_words + self.angle_words

        about_angle = np.flatnonzero(kind < _ABOUT_LABEL + _ABOUT_ANGLE)
        own = angle[document[about_angle]] * _WORDS_PER_ANGLE + random.integers(_WORDS_PER_ANGLE, size=len(about_angle))
        ids[about_angle] = self.label_words + own % self.angle_words

        about_label = np.flatnonzero(kind < _ABOUT_LABEL)
        of = document[about_label]
        label = labels[of, (random.random(len(of)) * num_labels[of]).astype(np.int64)]
        position = (random.random(len(of))[:, None] > self.preference[angle[of], :-1]).sum(axis=1)
        # Where there are fewer words than labels need, labels share some, but hardly two the same twelve.
        own_words = self.label_words == self.shape.num_labels * _WORDS_PER_LABEL
        ids[about_label] = (label * _WORDS_PER_LABEL + position) * (1 if own_words else _STEP) % self.label_words
        return ids


def _first_in_row(values: np.ndarray) -> np.ndarray:
    """Marks the entries that none before them in their row equals, bool like `values`."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    first = np.ones(values.shape, bool)
    first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    out = np.empty_like(first)
    np.put_along_axis(out, order, first, axis=1)
    return out
