"""Documents drawn so that each label comes equally often (class-balanced sampling, Kang et al., ICLR 2020)."""

import numpy as np

from lsfa_jax.data.ragged import Ragged


def balanced_documents(labels: Ragged, number: int, random: np.random.Generator) -> np.ndarray:
    """Draws documents with replacement: a label, each with the same probability, then one of its documents.

    A document has other labels too, which come along: frequent ones stay more frequent than rare ones.

    Args:
        labels: of the N documents, one label or more in all.
        number: M, how many are drawn.
        random: of the draws.

    Returns:
        int64[M], numbers of documents.
    """
    by_label = np.argsort(labels.values, kind="stable")
    present, starts, counts = np.unique(labels.values[by_label], return_index=True, return_counts=True)
    label = random.integers(0, len(present), number)
    return labels.row_ids[by_label[starts[label] + random.integers(0, counts[label])]]
