"""Omikuji's label tree on TF-IDF, as `bin/evaluate --baseline tree` trains it."""

import tempfile
import time
from pathlib import Path

import numpy as np
import omikuji
from scipy.sparse import csr_matrix

from benchmarks.cases import Shape
from benchmarks.documents import documents, random_rows
from benchmarks.harness.work import Work, per_item
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.sparse import tree

_MAX_TRAINING_DOCUMENTS = 2_000


def word_counts(words: Ragged, vocabulary_size: int) -> csr_matrix:
    """Counts the words of N documents, float32[N, vocabulary_size]."""
    ones = np.ones(len(words.values), np.float32)
    # A copy: the words may be a mapped file.
    counts = csr_matrix((ones, words.values, words.offsets), (words.num_rows, vocabulary_size), copy=True)
    counts.sum_duplicates()
    return counts


def train_tree(features: csr_matrix, labels: Ragged, num_labels: int) -> tuple[omikuji.Model, float]:
    """Returns a tree and the seconds of its training, without writing the file of its features."""
    with tempfile.TemporaryDirectory(prefix="lsfa-benchmark-") as folder:
        path, model = Path(folder) / "train.txt", Path(folder) / "model"
        tree.write_features(path, [features], labels, num_labels)
        start = time.monotonic()
        tree.train_file(path, model)
        seconds = time.monotonic() - start
        return omikuji.Model.load(str(model)), seconds


def best_labels(model: omikuji.Model, features: csr_matrix, top: int) -> np.ndarray:
    """Returns the tree's best labels, int32[N, top]; -1 where its beam reached fewer."""
    best = np.full((features.shape[0], top), -1, np.int32)
    for row, pairs in enumerate(_pairs(features)):
        ranked = model.predict(pairs, top_k=top)
        best[row, : len(ranked)] = [label for label, _ in ranked]
    return best


def _pairs(features: csr_matrix) -> list[list[tuple[int, float]]]:
    """Lists (column, value) of each row, the form that Omikuji reads."""
    return [list(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in features]


def prediction(shape: Shape, seed: int) -> Work:
    """The five best labels, by a tree trained on a few thousand documents and all of their labels; a document."""
    drawn = documents(shape, seed)
    counts = word_counts(drawn.words, shape.vocabulary_size)
    number = min(_MAX_TRAINING_DOCUMENTS, len(drawn.lengths))
    model, _ = train_tree(counts[:number], drawn.labels.take(np.arange(number)), shape.num_labels)
    texts = _pairs(counts[random_rows(drawn, shape.num_predicted, seed)])

    def run() -> None:
        for text in texts:
            model.predict(text, top_k=5)

    return per_item(len(texts), run, trained_on=number)
