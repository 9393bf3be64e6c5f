"""Eq. 7-9: supervised contrastive losses over positive feature-label pairs."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

Array = jax.Array
Denominator = Literal["all", "exclude_positive", "double_positive"]

# Stands for minus infinity in a softmax: exp of it is 0, and no infinity meets another in a gradient.
_NEVER = -1e30


# Below this length a vector has no direction that float32 could tell, and the gradient of its scaling overflows.
_SHORTEST = 1e-12


def unit(x: Array) -> Array:
    """Scales the last axis to length one; a vector shorter than 1e-12 becomes zero, with a zero gradient."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    long_enough = squared > _SHORTEST**2
    return x * jnp.where(long_enough, jax.lax.rsqrt(jnp.where(long_enough, squared, 1.0)), 0.0)


def supervised_contrastive(
    features: Array, label_ids: Array, mask: Array, temperature: float, normalize: bool = True
) -> Array:
    """Computes Eq. 7-8, every pair against every other pair of the batch.

    The paper's starting point; it needs pairs of the same label in one batch, which is why Eq. 9 replaces it.

    Args:
        features: float32[P, D], features v^i of positive pairs.
        label_ids: int32[P], their labels y^i.
        mask: bool[P], false where the pair is padding.
        temperature: tau.
        normalize: whether features are scaled to length one first.

    Returns:
        float32 scalar, a sum over pairs; a pair with no other of its label adds 0.
    """
    v = unit(features) if normalize else features
    other = mask[None, :] & ~jnp.eye(len(v), dtype=bool)
    similarity = jnp.where(other, v @ v.T / temperature, _NEVER)
    log_share = similarity - jax.nn.logsumexp(similarity, axis=1, keepdims=True)
    same = other & (label_ids[None, :] == label_ids[:, None])
    count = jnp.sum(same, axis=1)
    each = -jnp.sum(jnp.where(same, log_share, 0.0), axis=1) / jnp.maximum(count, 1)
    return jnp.sum(jnp.where(mask & (count > 0), each, 0.0))


def prototypical_contrastive(
    features: Array,
    label_ids: Array,
    mask: Array,
    prototypes: Array,
    present: Array,
    temperature: float,
    normalize: bool = True,
    denominator: Denominator = "all",
    label_weights: Array | None = None,
) -> Array:
    """Computes Eq. 9 without alpha, every pair against the prototypes, with the minus sign that the paper leaves out.

    Args:
        features: float32[P, D], features v^i of positive pairs.
        label_ids: int32[P], their labels y^i.
        mask: bool[P], false where the pair is padding.
        prototypes: float32[L, D], p of Eq. 10, taken as constants.
        present: bool[L], false for a label without features, which then stands in no denominator.
        temperature: tau.
        normalize: cosine similarity instead of the plain inner product.
        denominator: `all` counts each label once; `exclude_positive` leaves the positive out (Eq. 9 as printed);
            `double_positive` counts it twice (the released code).
        label_weights: float32[L], for how many labels each one stands in the denominator where the L are a sample; 1
            for the labels of pairs.

    Returns:
        float32 scalar, a sum over pairs; a pair whose label has no prototype adds 0.
    """
    prototypes = jax.lax.stop_gradient(prototypes)
    v, p = (unit(features), unit(prototypes)) if normalize else (features, prototypes)
    similarity = jnp.where(present, v @ p.T / temperature, _NEVER)
    positive = jnp.take_along_axis(similarity, label_ids[:, None], axis=1)
    if label_weights is not None:
        # w exp(s) = exp(s + log w).
        counts = label_weights > 0
        similarity = jnp.where(counts, similarity + jnp.log(jnp.where(counts, label_weights, 1.0)), _NEVER)
    if denominator == "exclude_positive":
        is_positive = jnp.arange(len(prototypes)) == label_ids[:, None]
        among = jnp.where(is_positive, _NEVER, similarity)
    elif denominator == "double_positive":
        among = jnp.concatenate([positive, similarity], axis=1)
    else:
        among = similarity
    each = jax.nn.logsumexp(among, axis=1) - positive[:, 0]
    # With one label alone, "all but the positive" is empty: there is nothing to be told apart from.
    counted = mask & present[label_ids] & (jnp.max(among, axis=1) > _NEVER / 2)
    return jnp.sum(jnp.where(counted, each, 0.0))


def over_pairs(
    loss: Callable[[Array, Array, Array], Array], features: Array, label_ids: Array, mask: Array, size: int = 128
) -> Array:
    """Adds up a loss over pairs, block by block: it costs what the pairs cost, and not what they are padded to.

    Padding is sorted behind the pairs, and a block of nothing else is not computed. Memory is a block's: the backward
    pass computes it again.

    Args:
        loss: of features, label ids and mask, a sum over pairs to which a pair under a false mask adds 0.
        features: float32[P, D].
        label_ids: int32[P].
        mask: bool[P], false where the pair is padding.
        size: pairs a block.

    Returns:
        float32 scalar.
    """
    blocks = -(-len(mask) // size)
    order = jnp.argsort(~mask, stable=True)

    def split(x: Array) -> Array:
        padding = ((0, blocks * size - len(x)), *((0, 0),) * (x.ndim - 1))
        return jnp.pad(x[order], padding).reshape(blocks, size, *x.shape[1:])

    def add(total: Array, block: tuple[Array, ...]) -> tuple[Array, None]:
        return total + jax.lax.cond(block[2][0], jax.checkpoint(loss), lambda *_: jnp.zeros(()), *block), None

    return jax.lax.scan(add, jnp.zeros(()), tuple(map(split, (features, label_ids, mask))))[0]
