"""Whether probabilities mean what they say: the expected calibration error.

Of the labels that are predicted with probability 0.8, four in five should be right. Most labels of a document have a
probability near 0, which any model has right; the error is therefore that of the best five.
"""

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking
from lsfa_jax.evaluation.ranking import Floats, Integers

NUM_BINS, PLACES = 15, 5


def expected_calibration_error(top: Integers, probabilities: Floats, truth: Ragged) -> float:
    """Computes sum_b |sum of probabilities in bin b - true labels in bin b| / pairs, in percent (Guo et al. 2017).

    The pairs are each document and its best five labels; the bins divide 0 to 1 into 15 of equal width. A probability
    on an edge belongs to the bin below, 0 to the first bin.

    Args:
        top: int32[N, K], the labels of each document, best first; -1 where it has fewer.
        probabilities: float32[N, W], their probabilities; the first min(PLACES, K, W) columns are used.
        truth: the labels of the N documents.

    Returns:
        0 where there are no pairs.
    """
    width = min(PLACES, top.shape[1], probabilities.shape[1])
    top, listed = top[:, :width], probabilities[:, :width].astype(np.float64)
    kept = top >= 0
    gaps = (listed - ranking.hits(top, truth))[kept]
    # Edges of float32, as the probabilities are: one on an edge is equal to it.
    inner_edges = (np.arange(1, NUM_BINS) / NUM_BINS).astype(np.float32)
    bins = np.searchsorted(inner_edges, listed[kept], side="left")
    return float(100 * np.abs(np.bincount(bins, gaps, NUM_BINS)).sum() / max(1, len(gaps)))
