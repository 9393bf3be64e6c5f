"""A sampled stand-in for the sums over all labels in Eq. 6 and 9: a shortlist with a weight for each label.

With the weights, a sum over the shortlist has the sum over all L labels as its mean over the draws. The batch's own
labels are always on the list, with weight 1. A pool of m labels stands for the n others, so that each counts n / m; of
the pool, the h hardest are on the list, and the first u of the rest, in the order drawn, stand for all m - h of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Shortlist(NamedTuple):
    """S labels and what each counts."""

    label_ids: Array
    """int32[S]: the batch's own in ascending order, the hard, the uniform; L or more where a place is free."""
    weights: Array
    """float32[S], 0 where a place is free."""


def hardness(logits: Array, document_mask: Array) -> Array:
    """Computes how much labels that no document has would add to Eq. 6, float32[M], given logits float32[B, M]."""
    return jnp.sum(jnp.where(document_mask[:, None], jax.nn.softplus(logits), 0.0), axis=0)


def choose(positives: Array, pool: Array, hardness: Array, num_labels: int) -> Shortlist:
    """Fills the shortlist: the batch's labels, then half of what is left with hard ones, half with uniform ones.

    The weights make sums unbiased whatever `hardness` says; the better it tells, the smaller their variance.

    Args:
        positives: int32[S], labels of the batch in ascending order, then L; at most S / 2 of them.
        pool: int32[M], other labels, drawn uniformly without replacement, in random order, then L.
        hardness: float32[M], of the labels of the pool.
        num_labels: L.
    """
    size, drawn = len(positives), len(pool)
    num_positive, num_pooled = jnp.sum(positives < num_labels), jnp.sum(pool < num_labels)
    room = size - num_positive
    hard = jnp.minimum(room // 2, num_pooled)
    uniform = jnp.minimum(room, num_pooled) - hard
    rank = jnp.argsort(jnp.argsort(jnp.where(pool < num_labels, hardness, -jnp.inf), descending=True))
    others = pool[jnp.argsort(jnp.where(rank < hard, -1, jnp.arange(drawn)))]
    each = (num_labels - num_positive) / jnp.maximum(num_pooled, 1)
    spread = each * (num_pooled - hard) / jnp.maximum(uniform, 1)
    place = jnp.arange(size)
    other = place - num_positive
    free = other >= hard + uniform
    label_ids = jnp.where(other < 0, positives, others[jnp.clip(other, 0, drawn - 1)])
    weights = jnp.where(other < 0, 1.0, jnp.where(other < hard, each, spread))
    # Free places differ, so that no two places ever name one row.
    return Shortlist(jnp.where(free, num_labels + place, label_ids), jnp.where(free, 0.0, weights))


def places(positives: Array, label_ids: Array) -> Array:
    """Returns where labels of the batch stand on the shortlist, int32 as `label_ids`; any place for other labels."""
    return jnp.minimum(jnp.searchsorted(positives, label_ids), len(positives) - 1)
