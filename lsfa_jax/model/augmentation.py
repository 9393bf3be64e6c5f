"""Eq. 18-19: generated features for tail labels, and the loss that adjusts their classifiers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lsfa_jax.model import classifier

Array = jax.Array


def sample_features(
    decode: Callable[[Array, Array], Array],
    key: Array,
    label_ids: Array,
    indices: Array,
    prototypes: Array,
    latent_size: int,
) -> Array:
    """Computes Eq. 18, v = G(z, p_l) with z ~ N(0, I), one feature for each (label, index).

    Feature j of label l depends on `key`, l and j alone: whichever others are drawn, in whatever order or batch, it is
    the same, so the set D^l need not be stored.

    Args:
        decode: the decoder G of one latent [Z] and one prototype [D], returning [D].
        key: PRNG key of the whole augmented set.
        label_ids: int32[P], l.
        indices: int32[P], j, from 0 to N_a - 1.
        prototypes: float32[P, D], p_l.
        latent_size: Z.

    Returns:
        float32[P, D].
    """

    def one(label: Array, index: Array, prototype: Array) -> Array:
        z = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, label), index), (latent_size,))
        return decode(z, prototype)

    return jax.vmap(one)(label_ids, indices, prototypes)


def augmented_loss(features: Array, weights: Array, bias: Array | None, mask: Array) -> Array:
    """Computes Eq. 19 without gamma, -sum log sigmoid(w_l . v), over generated pairs (the minus sign is the project's).

    Only the classifier of the pair's own label is touched: other labels' are not told that the feature is negative.

    Args:
        features: float32[P, D], generated features.
        weights: float32[P, D], w_l of each pair's label.
        bias: float32[P] or None.
        mask: bool[P], false where the pair is padding.

    Returns:
        float32 scalar, a sum over pairs.
    """
    logits = classifier.scores(features, weights, bias)
    return jnp.sum(jnp.where(mask, jax.nn.softplus(-logits), 0.0))
