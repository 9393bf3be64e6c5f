"""The label attention as the paper writes it, in plain JAX with automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Shape
from benchmarks.harness.work import Work
from benchmarks.ours.layers import attention_arguments, compiled
from benchmarks.ours.model import make
from lsfa_jax.types import Params


def loss(params: Params, states: jax.Array, lengths: jax.Array, targets: jax.Array) -> jax.Array:
    """Computes Eq. 2-6 for all labels at once, the sum over documents and labels.

    Args:
        params: `labels` with `queries` [L, 2H] and `head` (`kernel` [2H, D], `bias` [D]); `classifier` with `weights`
            [L, D].
        states: float32[B, T, 2H].
        lengths: int32[B].
        targets: float32[B, L], one at a document's labels.
    """
    head = params["labels"]["head"]
    mask = jnp.arange(states.shape[1]) < lengths[:, None]
    scores = jnp.einsum("btd,ld->blt", states, params["labels"]["queries"])
    attention = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
    attended = jnp.einsum("blt,btd->bld", attention, states)
    features = jax.nn.relu(attended @ head["kernel"] + head["bias"])
    logits = jnp.sum(features * params["classifier"]["weights"], axis=-1)
    return jnp.sum(jax.nn.softplus(logits) - targets * logits)


def dense_targets(label_ids: np.ndarray, label_mask: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns float32[B, L], one at each document's labels, from label ids and their mask [B, K]."""
    targets = np.zeros((len(label_ids), num_labels), np.float32)
    targets[np.nonzero(label_mask)[0], label_ids[label_mask]] = 1
    return targets


def label_attention(shape: Shape, seed: int) -> Work:
    """The loss over all labels, with its gradients with respect to token states and weights."""
    label_params, _, states, lengths, label_ids, label_mask = attention_arguments(make(shape, seed))
    targets = dense_targets(label_ids, label_mask, shape.num_labels)
    return compiled(jax.value_and_grad(loss, argnums=(0, 1)), (label_params, states, lengths, targets))
