"""Eq. 5-6: one-versus-all scores and binary cross-entropy."""

import jax
import jax.numpy as jnp

Array = jax.Array


def scores(features: Array, weights: Array, bias: Array | None = None) -> Array:
    """Computes the logit of Eq. 5, w_l . v_l.

    Args:
        features: float32[..., L, D], label-specific features.
        weights: float32[L, D], one classifier a label; [1, D] where all labels share one.
        bias: float32[L] or [1], or None as in the paper.

    Returns:
        float32[..., L]; sigmoid of it is the probability.
    """
    logits = jnp.sum(features * weights, axis=-1)
    return logits if bias is None else logits + bias


def binary_cross_entropy(logits: Array, label_ids: Array, label_mask: Array, document_mask: Array) -> Array:
    """Computes the sum of Eq. 6 over documents and labels, with the minus sign that the paper leaves out.

    -sum y log s(z) + (1 - y) log(1 - s(z)) = sum_all softplus(z) - sum_positive z, so targets stay lists of labels.

    Args:
        logits: float32[B, L].
        label_ids: int32[B, K], the labels of each document, each once.
        label_mask: bool[B, K], false where `label_ids` is padding.
        document_mask: bool[B], false where the document is padding.

    Returns:
        float32 scalar, a sum: divide by documents x labels for a mean.
    """
    positive = jnp.take_along_axis(logits, label_ids, axis=1) * label_mask
    each = jnp.sum(jax.nn.softplus(logits), axis=1) - jnp.sum(positive, axis=1)
    return jnp.sum(jnp.where(document_mask, each, 0.0))
