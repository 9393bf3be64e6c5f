"""Eq. 18-19: generated features for tail labels, and the loss that adjusts their classifiers."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.model import classifier
from lsfa_jax.types import Array


def sample_features(
    decode: Callable[[Array, Array], Array],
    key: Array,
    label_ids: Array,
    indices: Array,
    prototypes: Array,
    latent_size: int,
) -> Array:
    """Eq. 18: v = G(z, p_l) with z ~ N(0, I), one feature for each (label, index) pair.

    Feature j of label l depends on `key`, l and j only, not on the rest of the batch or its order. So the set D^l does
    not have to be stored.

    Args:
        decode: the decoder G, from one latent [Z] and one prototype [D] to one feature [D].
        key: PRNG key of the augmented set.
        label_ids: int32[P], l.
        indices: int32[P], j, from 0 to N_a - 1.
        prototypes: float32[P, D], p_l of each pair's label.
        latent_size: Z.

    Returns:
        float32[P, D].
    """
    chex.assert_equal_shape_prefix((label_ids, indices, prototypes), 1)

    def sample(label: Array, index: Array, prototype: Array) -> Array:
        z = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, label), index), (latent_size,))
        return decode(z, prototype)

    return jax.vmap(sample)(label_ids, indices, prototypes)


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
