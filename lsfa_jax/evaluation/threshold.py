"""The probability from which on a label is given to a document, chosen on validation documents."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.evaluation.scorer import over_split
from lsfa_jax.model.lsfa import Lsfa

DEFAULT = 0.5
"""The threshold where there is nothing to choose it on."""

GRID = np.linspace(0.01, 0.99, 99).astype(np.float32)
"""float32[99], the thresholds that are tried."""


def choose_threshold(model: Lsfa, params: Any, batches: Batches, mesh: Mesh) -> float:
    """Chooses the threshold of `GRID` with the largest micro F1 over all documents and labels of a split.

    Exact: a pass over the documents counts, for each threshold, the probabilities that reach it and those among them
    that belong to true labels. Labels that training never saw are missed at every threshold.

    Args:
        model: the classifier.
        params: its weights.
        batches: the validation documents.
        mesh: the devices.

    Returns:
        The threshold, of equally good ones the nearest to 0.5; 0.5 where no document has a label or none is ever found.
    """
    given, right = np.zeros((2, len(GRID) + 1), np.int64)
    count = _make_counter(model)
    for _, counts in over_split(lambda placed: count(params, placed), batches, mesh, "threshold"):
        given += counts[0]
        right += counts[1]
    # Counts of probabilities by the number of thresholds they reach become counts by threshold reached.
    reached, true = (counts[::-1].cumsum()[::-1][1:] for counts in (given, right))
    return best_threshold(reached, true, len(batches.split.labels.values))


def best_threshold(given: np.ndarray, right: np.ndarray, positives: int) -> float:
    """Returns the threshold of `GRID` with the largest micro F1.

    Args:
        given: int64[99], pairs of document and label that each threshold gives.
        right: int64[99], how many of these are true.
        positives: true pairs.
    """
    f1 = 2 * right / np.maximum(given + positives, 1)
    if not f1.any():
        return DEFAULT
    best = GRID[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - DEFAULT))])


def _make_counter(model: Lsfa) -> Any:
    grid = jnp.asarray(GRID)

    @jax.jit
    def count(params: Any, batch: Batch) -> jax.Array:
        """Counts all and the true probabilities by how many thresholds they reach, int32[2, 100]."""
        logits: Any = model.apply({"params": params}, batch.words, batch.lengths)
        reached = jnp.searchsorted(grid, jax.nn.sigmoid(logits), side="right")
        everywhere = jnp.broadcast_to(batch.document_mask[:, None], reached.shape)
        own = jnp.take_along_axis(reached, batch.label_ids, axis=1)
        tables = [
            jnp.zeros(len(GRID) + 1, jnp.int32).at[places].add(kept)
            for places, kept in ((reached, everywhere), (own, batch.label_mask))
        ]
        return jnp.stack(tables)

    return count
