"""Eq. 18-19: generated features for tail labels, and the losses that adjust their classifiers."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.model import classifier
from lsfa_jax.types import Array

Sampler = Callable[[Array, Array, Array], Array]
"""PRNG key, label and its prototype [D] -> one feature [D] of the label."""


def draw_features(sample: Sampler, key: Array, label_ids: Array, indices: Array, prototypes: Array) -> Array:
    """Draws one feature for each (label, index) pair.

    Feature j of label l depends on `key`, l and j only, not on the rest of the batch or its order. So the set D^l does
    not have to be stored.

    Args:
        sample: draws a feature.
        key: PRNG key of the augmented set.
        label_ids: int32[P], l.
        indices: int32[P], j, from 0 to N_a - 1.
        prototypes: float32[P, D], p_l of each pair's label.

    Returns:
        float32[P, D].
    """
    chex.assert_equal_shape_prefix((label_ids, indices, prototypes), 1)

    def draw(label: Array, index: Array, prototype: Array) -> Array:
        return sample(jax.random.fold_in(jax.random.fold_in(key, label), index), label, prototype)

    return jax.vmap(draw)(label_ids, indices, prototypes)


def from_decoder(decode: Callable[[Array, Array], Array], latent_size: int) -> Sampler:
    """Eq. 18: the sampler of v = G(z, p_l) with z ~ N(0, I).

    Args:
        decode: the decoder G, from one latent [Z] and one prototype [D] to one feature [D].
        latent_size: Z.
    """
    return lambda key, label, prototype: decode(jax.random.normal(key, (latent_size,)), prototype)


def augmented_loss(features: Array, weights: Array, bias: Array | None, mask: Array) -> Array:
    """Eq. 19 without gamma: -sum log sigmoid(w_l . v) over generated pairs (the paper omits the minus sign).

    A generated feature is a positive of its label only; it is not a negative of any other label.

    Args:
        features: float32[P, D], generated features v.
        weights: float32[P, D], w_l of each pair's label.
        bias: float32[P] or None.
        mask: bool[P], false where the pair is padding.

    Returns:
        float32 scalar, a sum over pairs.
    """
    chex.assert_equal_shape((features, weights))
    logits = classifier.scores(features, weights, bias)
    return jnp.sum(jnp.where(mask, jax.nn.softplus(-logits), 0.0))


def negative_loss(features: Array, weights: Array, bias: Array | None, label_ids: Array, mask: Array) -> Array:
    """Takes each generated feature as a negative of the other labels in the batch; not in the paper.

    -sum_i mean_{j: l_j != l_i} log(1 - sigmoid(w_{l_j} . v_i)) over the generated pairs of a step, so that a feature
    weighs as much among the negatives as it does among the positives of Eq. 19.

    Args:
        features: float32[P, D], generated features v.
        weights: float32[P, D], w_l of each pair's label.
        bias: float32[P] or None.
        label_ids: int32[P], l.
        mask: bool[P], false where the pair is padding.

    Returns:
        float32 scalar, a sum over pairs; a pair without another label in the batch adds nothing.
    """
    chex.assert_equal_shape((features, weights))
    logits = jnp.where(mask[:, None], features, 0.0) @ weights.T + (0.0 if bias is None else bias)
    others = (label_ids[:, None] != label_ids) & mask[:, None] & mask
    total = jnp.sum(jnp.where(others, jax.nn.softplus(logits), 0.0), axis=1)
    return jnp.sum(total / jnp.maximum(jnp.sum(others, axis=1), 1))
