"""The label attention as the paper writes it, in plain JAX with automatic differentiation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.work import Work
from benchmarks.ours import layers as ours_layers
from benchmarks.ours import model as ours_model

Array = jax.Array


def loss(own: Any, states: Array, lengths: Array, targets: Array) -> Array:
    """Computes Eq. 2-6 for all labels at once, the sum over documents and labels.

    Args:
        own: `label_queries` [L, 2H], `head_kernel` [2H, D], `head_bias` [D] and `classifier`'s `weights` [L, D].
        states: float32[B, T, 2H].
        lengths: int32[B].
        targets: float32[B, L], one at a document's labels.
    """
    mask = jnp.arange(states.shape[1]) < lengths[:, None]
    scores = jnp.einsum("btd,ld->blt", states, own["label_queries"])
    attention = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
    attended = jnp.einsum("blt,btd->bld", attention, states)
    features = jax.nn.relu(attended @ own["head_kernel"] + own["head_bias"])
    logits = jnp.sum(features * own["classifier"]["weights"], axis=-1)
    return jnp.sum(jax.nn.softplus(logits) - targets * logits)


def dense_targets(label_ids: np.ndarray, label_mask: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns float32[B, L], one at each document's labels."""
    targets = np.zeros((len(label_ids), num_labels), np.float32)
    targets[np.nonzero(label_mask)[0], label_ids[label_mask]] = 1
    return targets


def label_attention(shape: str, seed: int) -> Work:
    """The loss over all labels, with its gradients by token states and weights."""
    ours = ours_model.make(shape, seed)
    own, _, states, lengths, label_ids, label_mask = ours_layers.attention_arguments(ours)
    targets = dense_targets(label_ids, label_mask, ours.shape.num_labels)
    return ours_layers.compiled(jax.value_and_grad(loss, argnums=(0, 1)), (own, states, lengths, targets))
