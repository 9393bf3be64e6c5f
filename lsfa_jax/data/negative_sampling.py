"""The labels that a sampled loss may look at in one step: the batch's own, and a pool drawn from all others."""

from typing import Any, NamedTuple

import numpy as np

Array = Any
"""NumPy's on the host; JAX's once it is on the device."""

# Labels drawn for each place of the shortlist: the hard ones are the hardest of so many.
_DRAWN_PER_PLACE = 8


class Candidates(NamedTuple):
    """What `model/shortlist.py` chooses a shortlist of S labels from; L stands for no label."""

    positives: Array
    """int32[S], the batch's labels in ascending order, each once; L beyond them."""
    pool: Array
    """int32[M], other labels in random order, each once; L beyond them."""


def draw(label_ids: np.ndarray, num_labels: int, size: int, seed: int, epoch: int, step: int) -> Candidates:
    """Draws a pool without replacement, each of the other labels as likely as any.

    A batch whose labels would fill more than half of the shortlist gets one of twice the size, or four times, ..., so
    that others have room and a run still compiles few programs.

    Args:
        label_ids: int[P], labels of the batch's documents, in any order.
        num_labels: L.
        size: S, labels in a usual shortlist.
        seed: with `epoch` and `step`, decides the draw.
        epoch: from 1.
        step: batch of the epoch, from 0.
    """
    own = np.unique(label_ids)
    while 2 * len(own) > size:
        size *= 2
    positives = np.full(size, num_labels, np.int32)
    positives[: len(own)] = own
    # The high word of the counter keeps the steps apart from each other and from the epoch's order of documents.
    random = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, step + 1]))
    pool = np.full(min(_DRAWN_PER_PLACE * size, num_labels), num_labels, np.int32)
    drawn = random.choice(num_labels, min(len(pool) + len(own), num_labels), replace=False)
    others = drawn[~np.isin(drawn, own)][: len(pool)]
    pool[: len(others)] = others
    return Candidates(positives, pool)
