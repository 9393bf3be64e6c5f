"""Candidates of documents in prediction: what a linear model proposes, and labels that it does not reach.

Shapes: B documents, K proposed labels of one document, L labels, M labels added to a document's.
"""

import chex
import jax.numpy as jnp

from lsfa_jax.model.top_k import top_k
from lsfa_jax.types import Array


def with_best_others(candidates: Array, estimates: Array, number: int, shards: int = 1) -> Array:
    """Adds the labels with the largest estimates among those that are no candidates yet.

    Args:
        candidates: int32[B, K], different labels of each document; -1 where it has fewer.
        estimates: float32[B, L], estimated logits of all labels.
        number: M.
        shards: number of equal parts of the labels, `top_k`.

    Returns:
        int32[B, K + min(M, L)], the candidates and the added labels, best first; -1 where there are fewer.
    """
    chex.assert_rank((candidates, estimates), 2)
    # A negative index would count from the end: -1 becomes L, which is dropped.
    columns = jnp.where(candidates < 0, estimates.shape[1], candidates)
    others = estimates.at[jnp.arange(len(estimates))[:, None], columns].set(-jnp.inf, mode="drop")
    values, best = top_k(others, min(number, estimates.shape[1]), shards)
    added = jnp.where(values > -jnp.inf, best, -1).astype(jnp.int32)
    return jnp.concatenate([candidates, added], axis=1)
