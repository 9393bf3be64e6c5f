"""An unbiased estimate of the sums over all L labels in Eq. 6 and 9, from a shortlist of S labels.

The shortlist is a sample with importance weights, in three parts:

- positives: the labels of the batch, all of them, with weight 1.
- hard: a pool is m of the n labels that are not in the batch, drawn uniformly without replacement. The h labels of the
  pool with the largest estimated loss have weight n / m, the inverse of a label's probability to be in the pool.
- uniform: the first u of the remaining m - h labels of the pool, in its random order, have weight n / m x (m - h) / u.

The expectation of the weighted sum over the shortlist is the sum over all L labels, whatever the estimates of the loss
are; good estimates lower the variance.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.types import Array


class Shortlist(NamedTuple):
    """S labels and their importance weights."""

    label_ids: Array
    """int32[S]: positives in ascending order, hard, uniform; distinct ids from L on at unused positions."""
    weights: Array
    """float32[S]; 0 at unused positions."""


def hardness(logits: Array, document_mask: Array) -> Array:
    """Estimates what each label adds to Eq. 6 as a negative of all documents, sum_b softplus(z).

    Args:
        logits: float32[B, M], z.
        document_mask: bool[B], false where the document is padding.

    Returns:
        float32[M].
    """
    chex.assert_shape(document_mask, (len(logits),))
    return jnp.sum(jnp.where(document_mask[:, None], jax.nn.softplus(logits), 0.0), axis=0)


def choose(positives: Array, pool: Array, hardness: Array, num_labels: int) -> Shortlist:
    """Fills the shortlist: positives first, half of the remaining positions with hard labels, the rest uniformly.

    Args:
        positives: int32[S], labels of the batch in ascending order, at most S / 2 of them, padded with L.
        pool: int32[M], labels that are not in the batch, drawn uniformly without replacement, in random order, padded
            with L.
        hardness: float32[M], estimated loss of each label of the pool.
        num_labels: L.
    """
    chex.assert_rank(positives, 1)
    chex.assert_equal_shape((pool, hardness))
    is_pooled = pool < num_labels
    num_positive, num_pooled = jnp.sum(positives < num_labels), jnp.sum(is_pooled)
    room = len(positives) - num_positive
    num_hard = jnp.minimum(room // 2, num_pooled)
    num_uniform = jnp.minimum(room, num_pooled) - num_hard
    # The hard labels first, then the rest of the pool in its random order.
    rank = jnp.argsort(jnp.argsort(jnp.where(is_pooled, hardness, -jnp.inf), descending=True))
    negatives = pool[jnp.argsort(jnp.where(rank < num_hard, -1, jnp.arange(len(pool))))]
    hard_weight = (num_labels - num_positive) / jnp.maximum(num_pooled, 1)
    uniform_weight = hard_weight * (num_pooled - num_hard) / jnp.maximum(num_uniform, 1)

    position = jnp.arange(len(positives))
    negative = position - num_positive  # Index into `negatives`; below 0 at the positives.
    is_unused = negative >= num_hard + num_uniform
    label_ids = jnp.where(negative < 0, positives, negatives[jnp.clip(negative, 0, len(pool) - 1)])
    weights = jnp.where(negative < 0, 1.0, jnp.where(negative < num_hard, hard_weight, uniform_weight))
    # Unused positions have distinct ids, so that a scatter to the rows of the shortlist has no duplicate index.
    return Shortlist(jnp.where(is_unused, num_labels + position, label_ids), jnp.where(is_unused, 0.0, weights))


def positions(positives: Array, label_ids: Array) -> Array:
    """Returns the positions of labels on the shortlist.

    Args:
        positives: int32[S], as for `choose`.
        label_ids: int32[...], labels of the batch; arbitrary ids at padding.

    Returns:
        int32[...], below S; arbitrary for labels that are not in the batch.
    """
    return jnp.minimum(jnp.searchsorted(positives, label_ids), len(positives) - 1)
