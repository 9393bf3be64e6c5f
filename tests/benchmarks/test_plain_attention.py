"""The label attention in plain JAX computes what ours computes: both are timed on the same work."""

import jax
import numpy as np
import pytest

from benchmarks.ours.layers import attention_arguments
from benchmarks.peers import plain_attention
from lsfa_jax.model.lsfa import Lsfa


@pytest.mark.slow
def test_loss_and_gradients_equal_ours(ours):
    label_params, encoder_params, states, lengths, label_ids, label_mask = attention_arguments(ours)
    lengths = np.maximum(lengths - np.arange(len(lengths)), 1).astype(np.int32)
    targets = plain_attention.dense_targets(label_ids, label_mask, ours.shape.num_labels)

    def our_loss(label_params, states):
        labels = label_ids, label_mask, np.ones(len(lengths), bool)
        return ours.model.apply({"params": encoder_params | label_params}, states, lengths, *labels, method=Lsfa.loss)

    value, gradients = jax.jit(jax.value_and_grad(our_loss, argnums=(0, 1)))(label_params, states)
    plain = jax.jit(jax.value_and_grad(plain_attention.loss, argnums=(0, 1)))
    plain_value, plain_gradients = plain(label_params, states, lengths, targets)
    np.testing.assert_allclose(value, plain_value, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6), gradients, plain_gradients)
