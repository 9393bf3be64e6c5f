"""One-versus-rest linear support vector machines, one for each label: scikit-learn's LinearSVC (LIBLINEAR), C = 1."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.util import cores
from lsfa_jax.util.console import progress


class Svm(NamedTuple):
    """The machines of M labels, those that training documents have; V terms."""

    label_ids: np.ndarray
    """int32[M], ascending."""
    weights: np.ndarray
    """float32[M, V]."""
    intercepts: np.ndarray
    """float32[M]."""

    def decisions(self, features: csr_matrix) -> np.ndarray:
        """Computes float32[N, M], positive where a label is predicted, of float32[N, V] features."""
        return np.asarray(features @ self.weights.T) + self.intercepts


def train(features: csr_matrix, labels: Ragged, num_labels: int) -> Svm:
    """Trains the machines, one after the other, so that they are the same in every training.

    LIBLINEAR draws from one generator of random numbers for all threads: machines that are trained side by side differ
    in the fifth digit from run to run. That reverses labels that always occur together, which would tie (AAPD, 7,000
    documents: the first label of 17 % of the documents).

    Args:
        features: of the training documents, float32 [documents, V].
        labels: their labels.
        num_labels: L.
    """
    blocks = list(_blocks(features, labels, num_labels, max(1, num_labels), threads=1))
    if not blocks:
        return Svm(np.zeros(0, np.int32), np.zeros((0, features.shape[1]), np.float32), np.zeros(0, np.float32))
    return blocks[0]


def decisions(
    train: csr_matrix, labels: Ragged, test: csr_matrix, num_labels: int, block: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Trains the machines and yields their decisions block by block, so that memory holds one block of labels.

    Args:
        train: features of the training documents, float32 [documents, terms].
        labels: their labels.
        test: features of the N test documents.
        num_labels: L.
        block: labels a block.

    Yields:
        int32[block], labels that training documents have, ascending; float32[N, block], the decisions, positive where a
        label is predicted. A label that all training documents have is always predicted, with the decision 1.
    """
    for machines in _blocks(train, labels, num_labels, block, cores.available()):
        yield machines.label_ids, machines.decisions(test)


def documents_of_labels(labels: Ragged, num_labels: int) -> Ragged:
    """Transposes the labels of each document into the documents of each label, L rows."""
    order = np.argsort(labels.values, kind="stable")
    return Ragged.from_sizes(labels.row_ids[order], np.bincount(labels.values, minlength=num_labels))


def _blocks(features: csr_matrix, labels: Ragged, num_labels: int, block: int, threads: int | None) -> Iterator[Svm]:
    documents = documents_of_labels(labels, num_labels)
    trained = np.flatnonzero(documents.sizes).astype(np.int32)

    def machine(label: int) -> np.ndarray:
        return _machine(features, documents.row(label))

    with (
        progress("one-versus-rest SVM", len(trained), "labels") as advance,
        ThreadPoolExecutor(threads) as pool,
    ):
        for start in range(0, len(trained), block):
            ids = trained[start : start + block]
            machines = np.empty((len(ids), features.shape[1] + 1), np.float32)
            for row, trained_one in zip(machines, pool.map(machine, ids.tolist()), strict=True):
                row[:] = trained_one
                advance()
            yield Svm(ids, machines[:, :-1], machines[:, -1])


def _machine(features: csr_matrix, positives: np.ndarray) -> np.ndarray:
    """Trains one machine that separates the positive rows from all others; float32[V + 1], weights and intercept."""
    from sklearn.svm import LinearSVC

    if len(positives) == features.shape[0]:
        return np.append(np.zeros(features.shape[1], np.float32), np.float32(1))
    targets = np.zeros(features.shape[0], np.int8)
    targets[positives] = 1
    trained = LinearSVC(C=1.0, random_state=0).fit(features, targets)
    return np.append(trained.coef_[0], trained.intercept_).astype(np.float32)
