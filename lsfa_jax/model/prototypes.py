"""Eq. 10: prototypes as segment sums over positive pairs; head and tail labels."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.types import Array, HostArray


class FeatureSums(NamedTuple):
    """Sums over feature-label pairs, from which prototypes and variances follow.

    Additive: the sums over two sets of pairs add up to the sums over both.
    """

    totals: Array
    """float32[L, D], sum of v_l."""
    counts: Array
    """int32[L], n^l."""
    squares: Array
    """float32[L], sum of |v_l|^2."""


def zero_sums(num_labels: int, feature_size: int) -> FeatureSums:
    """Returns the sums over no pairs, the neutral element of their addition."""
    return FeatureSums(jnp.zeros((num_labels, feature_size)), jnp.zeros(num_labels, jnp.int32), jnp.zeros(num_labels))


def feature_sums(features: Array, label_ids: Array, mask: Array, num_labels: int) -> FeatureSums:
    """Sums features by label.

    Args:
        features: float32[P, D], features v of positive pairs.
        label_ids: int32[P], their labels.
        mask: bool[P], false where the pair is padding.
        num_labels: L.

    Returns:
        The sums of the L labels.
    """
    chex.assert_rank(features, 2)
    chex.assert_equal_shape_prefix((features, label_ids, mask), 1)
    features = jnp.where(mask[:, None], features, 0.0)

    def by_label(values: Array) -> Array:
        return jax.ops.segment_sum(values, label_ids, num_segments=num_labels)

    return FeatureSums(by_label(features), by_label(mask.astype(jnp.int32)), by_label(jnp.sum(features**2, axis=-1)))


def prototypes(sums: FeatureSums) -> Array:
    """Eq. 10: p_l, the mean feature of each label, float32[L, D]; 0 for a label without features."""
    return sums.totals / jnp.maximum(sums.counts, 1)[:, None]


def variances(sums: FeatureSums) -> Array:
    """Returns float32[L], the unbiased variance around the prototype summed over dimensions; 0 below two features."""
    scatter = sums.squares - jnp.sum(sums.totals**2, axis=-1) / jnp.maximum(sums.counts, 1)
    return jnp.where(sums.counts > 1, jnp.maximum(scatter, 0.0) / jnp.maximum(sums.counts - 1, 1), 0.0)


def scale(sums: FeatureSums) -> dict[str, Array]:
    """Returns the unit in which the PVAE sees features.

    Returns:
        `centre`, float32[D], the mean of the features; `deviation`, float32, their standard deviation around their
        prototype, pooled over labels and dimensions; 1 where there is none.
    """
    freedom = jnp.maximum(sums.counts - 1, 0)
    variance = jnp.sum(freedom * variances(sums)) / jnp.maximum(jnp.sum(freedom), 1) / sums.totals.shape[1]
    centre = jnp.sum(sums.totals, axis=0) / jnp.maximum(jnp.sum(sums.counts), 1)
    return {"centre": centre, "deviation": jnp.where(variance > 0, jnp.sqrt(variance), 1.0)}


def is_head(counts: HostArray, threshold: int) -> HostArray:
    """Returns bool[L], true for head labels: a label is a tail label if n^l < N_t.

    Args:
        counts: int[L], n^l, features of each label.
        threshold: N_t.
    """
    return counts >= threshold
