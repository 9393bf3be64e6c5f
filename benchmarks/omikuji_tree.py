"""Omikuji's label tree on TF-IDF, as `bin/evaluate --baseline tree` has it."""

import tempfile
import time
from pathlib import Path

import numpy as np
import omikuji
from scipy.sparse import csr_matrix

from benchmarks import shapes
from benchmarks.work import Work, each
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.sparse import tree

_TRAINING = 2_000


def word_counts(words: np.ndarray, offsets: np.ndarray, vocabulary: int) -> csr_matrix:
    """Counts words, float32[documents, vocabulary]; words[offsets[i]:offsets[i + 1]] are those of document i."""
    ones = np.ones(len(words), np.float32)
    # A copy: words may be a mapped file.
    counts = csr_matrix((ones, words, offsets), (len(offsets) - 1, vocabulary), copy=True)
    counts.sum_duplicates()
    return counts


def train_tree(features: csr_matrix, labels: Ragged, num_labels: int) -> tuple[omikuji.Model, float]:
    """Returns a tree, and the seconds in which it was trained: without the file of its features."""
    with tempfile.TemporaryDirectory(prefix="lsfa-benchmark-") as folder:
        path, model = Path(folder) / "train.txt", Path(folder) / "model"
        tree.write_features(path, features, labels, num_labels)
        started = time.monotonic()
        tree.train_file(path, model)
        seconds = time.monotonic() - started
        return omikuji.Model.load(str(model)), seconds


def prediction(shape: str, seed: int) -> Work:
    """The five best labels of documents by a tree of all labels that a few thousand documents have; a document."""
    own = shapes.SHAPES[shape]
    made = shapes.documents(own, seed)
    counts = word_counts(made.words, made.word_offsets, own.vocabulary)
    number = min(_TRAINING, len(made))
    train = counts[:number]
    labels = Ragged(made.labels[: made.label_offsets[number]], made.label_offsets[: number + 1])
    model, _ = train_tree(train, labels, own.num_labels)
    rows = np.random.default_rng(seed).choice(len(made), shapes.predicted(own), replace=False)
    texts = [list(zip(counts[row].indices.tolist(), counts[row].data.tolist(), strict=True)) for row in rows]

    def run() -> None:
        for text in texts:
            model.predict(text, top_k=5)

    return each(len(texts), run, trained_on=number)
