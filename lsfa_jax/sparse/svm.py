"""One-versus-rest linear support vector machines, one for each label: scikit-learn's LinearSVC (LIBLINEAR), C = 1."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.util.console import progress


def decisions(
    train: csr_matrix, labels: Ragged, test: csr_matrix, num_labels: int, block: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Trains the machines and yields their decisions block by block, so that memory holds one block of labels.

    Args:
        train: features of the training documents, float32 [documents, words].
        labels: their labels.
        test: features of the N test documents.
        num_labels: L.
        block: labels a block.

    Yields:
        int64[block], labels that training documents have, ascending; float32[N, block], the decisions, positive where a
        label is predicted. A label that all training documents have is always predicted, with the decision 1.
    """
    documents = documents_of_labels(labels, num_labels)
    trained = np.flatnonzero(documents.sizes)

    def decide(label: int) -> np.ndarray:
        return _decide(train, documents.row(label), test)

    with (
        progress("one-versus-rest SVM", len(trained), "labels") as advance,
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        for start in range(0, len(trained), block):
            ids = trained[start : start + block]
            columns = []
            for column in threads.map(decide, ids.tolist()):
                columns.append(column)
                advance()
            yield ids, np.stack(columns, axis=1)


def documents_of_labels(labels: Ragged, num_labels: int) -> Ragged:
    """Transposes the labels of each document into the documents of each label, L rows."""
    order = np.argsort(labels.values, kind="stable")
    return Ragged.from_sizes(labels.row_ids[order], np.bincount(labels.values, minlength=num_labels))


def _decide(train: csr_matrix, positives: np.ndarray, test: csr_matrix) -> np.ndarray:
    """Trains one machine that separates the positive rows from all others; its decisions, float32[N]."""
    from sklearn.svm import LinearSVC

    if len(positives) == train.shape[0]:
        return np.ones(test.shape[0], np.float32)
    targets = np.zeros(train.shape[0], np.int8)
    targets[positives] = 1
    return LinearSVC(C=1.0, random_state=0).fit(train, targets).decision_function(test).astype(np.float32)
