"""Eq. 5-6: one-versus-all logits and binary cross-entropy."""

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.types import Array


def scores(features: Array, weights: Array, bias: Array | None = None) -> Array:
    """Eq. 5 before the sigmoid: the logits w_l . v_l.

    Args:
        features: float32[..., L, D], label-specific features v_l.
        weights: float32[L, D], one classifier w_l per label; [1, D] if all labels share one.
        bias: float32[L] or [1]; None as in the paper.

    Returns:
        float32[..., L]; the sigmoid of it is the probability.
    """
    chex.assert_equal_shape_suffix((features, weights), 1)
    logits = jnp.sum(features * weights, axis=-1)
    return logits if bias is None else logits + bias


def binary_cross_entropy(
    logits: Array, label_ids: Array, label_mask: Array, document_mask: Array, label_weights: Array | None = None
) -> Array:
    """Eq. 6: binary cross-entropy summed over documents and labels, with the minus sign that the paper omits.

    -sum_l y_l log s(z_l) + (1 - y_l) log(1 - s(z_l)) = sum_l softplus(z_l) - sum_{y_l = 1} z_l, so targets stay lists
    of labels and no dense [B, L] target array is needed.

    Args:
        logits: float32[B, L], z.
        label_ids: int32[B, K], the labels of each document, each once.
        label_mask: bool[B, K], false where `label_ids` is padding.
        document_mask: bool[B], false where the document is padding.
        label_weights: float32[L], weight of each label's terms; None: all 1.

    Returns:
        float32 scalar, a sum; divide by documents x labels for a mean.
    """
    chex.assert_equal_shape((label_ids, label_mask))
    chex.assert_shape(document_mask, (len(logits),))
    weights = 1.0 if label_weights is None else label_weights
    positive = jnp.take_along_axis(weights * logits, label_ids, axis=1) * label_mask
    per_document = jnp.sum(weights * jax.nn.softplus(logits), axis=1) - jnp.sum(positive, axis=1)
    return jnp.sum(jnp.where(document_mask, per_document, 0.0))
