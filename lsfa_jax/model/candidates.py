"""Candidates of documents in prediction: what a linear model proposes, and labels that it does not reach.

Shapes: B documents, K proposed labels of one document, L labels, M labels added to a document's, C labels of a block.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.model.label_loss import Tiling
from lsfa_jax.model.top_k import top_k
from lsfa_jax.types import Array, PyTree


def with_best_others(
    candidates: Array,
    estimate: Callable[[PyTree], Array],
    tables: PyTree,
    num_labels: int,
    number: int,
    tiling: Tiling,
) -> Array:
    """Adds the labels with the largest estimates among those that are no candidates yet.

    Estimates are computed for a block of labels at a time: no array of all documents and labels exists.

    Args:
        candidates: int32[B, K], different labels of each document; -1 where it has fewer.
        estimate: returns float32[B, C], estimated logits of the labels whose rows of `tables` it gets.
        tables: arrays with one row per label, perhaps followed by padding.
        num_labels: L.
        number: M.
        tiling: of the rows of the tables into blocks.

    Returns:
        int32[B, K + min(M, rows of the tables)], the candidates and the added labels, best first; -1 where there are
        fewer.
    """
    chex.assert_rank(candidates, 2)
    number = min(number, tiling.num_labels)
    documents = jnp.arange(len(candidates))[:, None]
    # Padding of a block has the label -1.
    label_ids = tiling.tile_labels(jnp.arange(1, tiling.num_labels + 1)) - 1
    blocks, columns = tiling.places(candidates)

    def best_so_far(best: tuple[Array, Array], block: tuple[Array, Array, PyTree]) -> tuple[tuple[Array, Array], None]:
        block_number, ids, rows = block
        estimates = jnp.where((ids >= 0) & (ids < num_labels), estimate(rows), -jnp.inf)
        is_inside = (candidates >= 0) & (blocks == block_number)
        estimates = estimates.at[documents, jnp.where(is_inside, columns, len(ids))].set(-jnp.inf, mode="drop")
        values, places = top_k(estimates, min(number, len(ids)), tiling.label_shards)
        both = jnp.concatenate([best[0], values], axis=1), jnp.concatenate([best[1], ids[places]], axis=1)
        values, places = top_k(both[0], number)
        return (values, jnp.take_along_axis(both[1], places, axis=1)), None

    shape = len(candidates), number
    start = jnp.full(shape, -jnp.inf), jnp.full(shape, -1, label_ids.dtype)
    rows = jax.tree.map(tiling.tile_labels, tables)
    (values, best), _ = jax.lax.scan(best_so_far, start, (jnp.arange(len(label_ids)), label_ids, rows))
    added = jnp.where(values > -jnp.inf, best, -1).astype(jnp.int32)
    return jnp.concatenate([candidates, added], axis=1)
