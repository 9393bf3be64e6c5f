"""The bootstrap over documents: how sure a difference between two systems is that were measured on the same documents.

Shapes: N documents, M sums.
"""

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from lsfa_jax.evaluation.ranking import Floats

# Counts of documents that are in memory at a time.
_CELLS = 20_000_000


def resampled_sums(values: Floats | csr_array, draws: int, random: np.random.Generator) -> Floats:
    """Computes the sums of values over N documents that are drawn with replacement from the N documents.

    Columns share the draws: systems whose values stand side by side are compared on the same documents.

    Args:
        values: float64[N, M], dense or sparse.
        draws: how often N documents are drawn.
        random: of the draws.

    Returns:
        float64[draws, M].
    """
    number = values.shape[0]
    sums = np.zeros((draws, values.shape[1]))
    block = max(1, _CELLS // max(number, 1))
    for start in range(0, draws, block):
        part: Any = sums[start : start + block]
        documents = random.integers(0, number, (len(part), number)) if number else np.zeros((len(part), 0), np.int64)
        counts = np.stack([np.bincount(drawn, minlength=number) for drawn in documents]).astype(np.float64)
        part[:] = counts @ values
    return sums
