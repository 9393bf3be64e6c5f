"""Negative sampling: labels that stand for all others in one training step with a sampled loss."""

from typing import NamedTuple

import numpy as np

from lsfa_jax.types import AnyArray, HostArray
from lsfa_jax.util.random_streams import Stream, stream

# Size of the pool per position of the shortlist: the hard labels are the hardest of this many.
_POOL_PER_POSITION = 8


class ShortlistPool(NamedTuple):
    """Labels from which `model/shortlist.py` chooses S; the id L is padding. On the host, then on the devices."""

    positives: AnyArray
    """int32[S], the labels of the batch in ascending order, each once, padded with L."""
    pool: AnyArray
    """int32[M], labels that are not in the batch, in random order, each once, padded with L."""


def sample_pool(
    label_ids: HostArray,
    num_labels: int,
    size: int,
    seed: int,
    epoch: int,
    step: int,
    use: Stream = Stream.NEGATIVE_SAMPLING,
) -> ShortlistPool:
    """Samples a pool of negatives uniformly without replacement.

    S is `size`, doubled until the labels of the batch fill at most half of the shortlist: negatives have room, and a
    run compiles few programs.

    Args:
        label_ids: int[P], labels of the batch's documents, in any order.
        num_labels: L.
        size: S of a typical batch.
        seed: seed of the run; with `epoch` and `step` it determines the sample.
        epoch: from 1.
        step: number of the batch in the epoch, from 0.
        use: what the labels are for.

    Returns:
        The labels of the batch, and a pool of M = min(8 S, L).
    """
    positive_ids = np.unique(label_ids)
    while 2 * len(positive_ids) > size:
        size *= 2
    positives = np.full(size, num_labels, np.int32)
    positives[: len(positive_ids)] = positive_ids
    random = stream(use, seed, epoch, step)
    pool = np.full(min(_POOL_PER_POSITION * size, num_labels), num_labels, np.int32)
    # As many more as there are positives, so that the pool is full after these are removed.
    sample = random.choice(num_labels, min(len(pool) + len(positive_ids), num_labels), replace=False)
    negatives = sample[~np.isin(sample, positive_ids)][: len(pool)]
    pool[: len(negatives)] = negatives
    return ShortlistPool(positives, pool)


def sample_labels(num_labels: int, number: int, use: Stream, seed: int, epoch: int, step: int) -> HostArray:
    """Samples labels uniformly without replacement.

    Args:
        num_labels: L.
        number: R, at most L.
        use: what the labels are for.
        seed: seed of the run; with `use`, `epoch` and `step` it determines the sample.
        epoch: from 1.
        step: number of the batch in the epoch, from 0.

    Returns:
        int32[R].
    """
    return stream(use, seed, epoch, step).choice(num_labels, number, replace=False).astype(np.int32)
