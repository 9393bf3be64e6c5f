"""Eq. 10: prototypes as segment sums over positive pairs; head and tail labels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class FeatureSums(NamedTuple):
    """Sums over feature-label pairs, for prototypes and variances; sums of parts add up to sums of all."""

    totals: Array
    """float32[L, D], sum of v_l."""
    counts: Array
    """int32[L], n^l."""
    squares: Array
    """float32[L], sum of |v_l|^2."""


def no_features(num_labels: int, feature_size: int) -> FeatureSums:
    """Returns the sums over nothing."""
    return FeatureSums(jnp.zeros((num_labels, feature_size)), jnp.zeros(num_labels, jnp.int32), jnp.zeros(num_labels))


def feature_sums(features: Array, label_ids: Array, mask: Array, num_labels: int) -> FeatureSums:
    """Adds up features by label.

    Args:
        features: float32[P, D], features of positive pairs.
        label_ids: int32[P], their labels.
        mask: bool[P], false where the pair is padding.
        num_labels: L.
    """
    features = jnp.where(mask[:, None], features, 0.0)

    def by_label(values: Array) -> Array:
        return jax.ops.segment_sum(values, label_ids, num_segments=num_labels)

    return FeatureSums(by_label(features), by_label(mask.astype(jnp.int32)), by_label(jnp.sum(features**2, axis=-1)))


def prototypes(sums: FeatureSums) -> Array:
    """Computes Eq. 10, float32[L, D], the mean feature of each label; 0 for a label without features."""
    return sums.totals / jnp.maximum(sums.counts, 1)[:, None]


def variances(sums: FeatureSums) -> Array:
    """Computes float32[L], the unbiased variance around the prototype, summed over dimensions; 0 below two features."""
    spread = sums.squares - jnp.sum(sums.totals**2, axis=-1) / jnp.maximum(sums.counts, 1)
    return jnp.where(sums.counts > 1, jnp.maximum(spread, 0.0) / jnp.maximum(sums.counts - 1, 1), 0.0)


def is_head(count: Any, threshold: int) -> Any:
    """Returns bool[L]: a label is a tail label if n^l < N_t, else a head label."""
    return count >= threshold
