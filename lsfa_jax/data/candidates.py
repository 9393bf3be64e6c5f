"""Candidates of training documents: their labels first, then what a linear model proposes for them."""

import numpy as np

from lsfa_jax.data.batches import Batch
from lsfa_jax.types import HostArray


def with_labels(batch: Batch) -> Batch:
    """Returns a batch for training: the candidates of each document are its labels, then the best proposed others.

    The proposals that fit are kept: the number of candidates stays the same, unless some document may have more labels.
    For evaluation a batch keeps its candidates as they are.

    Args:
        batch: of B documents on the host, with proposals int32[B, candidates], -1 where there are fewer.

    Returns:
        The batch with candidates int32[B, max(candidates, K)], each label once, -1 where there are fewer.

    Raises:
        ValueError: the batch has no candidates.
    """
    if batch.candidates is None:
        raise ValueError("the batch has no candidates: give `Batches` those of each document")
    labels = np.where(batch.label_mask, batch.label_ids, -1)
    is_label = np.any(batch.candidates[:, :, None] == labels[:, None], axis=2)
    proposed = np.where(is_label, -1, batch.candidates)
    width = max(proposed.shape[1], labels.shape[1])
    return batch._replace(candidates=_front(np.concatenate([labels, proposed], axis=1))[:, :width])


def _front(label_ids: HostArray) -> HostArray:
    """Moves the labels of each row before its -1, in the same order."""
    return np.take_along_axis(label_ids, np.argsort(label_ids < 0, axis=1, kind="stable"), axis=1).astype(np.int32)
