"""Our encoders and our label attention, each without the rest of the model."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Shape
from benchmarks.documents import step_rows
from benchmarks.harness.work import Work, per_call
from benchmarks.ours.model import Ours, make
from lsfa_jax.config import Encoder
from lsfa_jax.model.encoders import bilstm
from lsfa_jax.model.encoders.cnn import cnn
from lsfa_jax.types import Params, PyTree


def lstm(shape: Shape, seed: int) -> Work:
    """Gradients of weights and inputs of a BiLSTM, all texts of the longest length."""
    key = jax.random.key(seed)

    def uniform(number: int, *size: int) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, number), size, minval=-1, maxval=1) * shape.hidden_size**-0.5

    params = {
        side: {
            "w_input": uniform(4 * i, shape.embedding_size, 4 * shape.hidden_size),
            "w_hidden": uniform(4 * i + 1, shape.hidden_size, 4 * shape.hidden_size),
            "bias": uniform(4 * i + 2, 4 * shape.hidden_size),
            "h0": jnp.zeros(shape.hidden_size),
            "c0": jnp.zeros(shape.hidden_size),
        }
        for i, side in enumerate(("forward", "backward"))
    }
    return _encoder(shape, bilstm.bilstm, params, key)


def convolution(shape: Shape, seed: int) -> Work:
    """Gradients of weights and inputs of a convolution with 2H filters, all texts of the longest length."""
    key = jax.random.key(seed)
    size = Encoder().kernel_width, shape.embedding_size, 2 * shape.hidden_size
    kernel = jax.random.uniform(key, size, minval=-1, maxval=1) * shape.hidden_size**-0.5
    return _encoder(shape, cnn, {"convolution": {"kernel": kernel, "bias": jnp.zeros(size[-1])}}, key)


def _encoder(shape: Shape, encode: Callable[..., jax.Array], params: Params, key: jax.Array) -> Work:
    """Gradients of a function of parameters, embeddings [B, T, E] and lengths [B] that computes states [B, T, 2H]."""
    tokens = shape.batch_size, shape.max_words
    x = jax.random.normal(jax.random.fold_in(key, 8), (*tokens, shape.embedding_size))
    d_states = jax.random.normal(jax.random.fold_in(key, 9), (*tokens, 2 * shape.hidden_size))
    lengths = jnp.full(shape.batch_size, shape.max_words)

    @jax.jit
    def gradients(params: Params, x: jax.Array, lengths: jax.Array, d_states: jax.Array) -> PyTree:
        return jax.grad(lambda p, x: jnp.sum(encode(p, x, lengths) * d_states), argnums=(0, 1))(params, x)

    return per_call(lambda: jax.block_until_ready(gradients(params, x, lengths, d_states)))


def label_attention(shape: Shape, seed: int) -> Work:
    """The loss over all labels, with its gradients with respect to token states and weights."""
    ours = make(shape, seed)
    label_params, encoder_params, states, *labels = attention_arguments(ours)

    def loss(label_params: Params, states: jax.Array, encoder_params: Params, *labels: jax.Array) -> PyTree:
        lsfa = ours.model.bind({"params": {**encoder_params, **label_params}})
        lengths, label_ids, label_mask = labels
        return lsfa.loss(states, lengths, label_ids, label_mask, jnp.ones(len(lengths), bool))

    return compiled(jax.value_and_grad(loss, argnums=(0, 1)), (label_params, states, encoder_params, *labels))


def attention_arguments(ours: Ours) -> tuple[Any, ...]:
    """Returns the arguments of a label attention, for documents that nearly fill T words.

    These are the weights from the label queries on, the weights of the encoder, token states float32[B, T, 2H], lengths
    int32[B], and label ids and their mask [B, K].
    """
    shape = ours.shape
    batch = ours.batch(step_rows(ours.documents, shape, shape.max_words), shape.max_words)
    states = np.random.default_rng(0).uniform(-1, 1, (shape.batch_size, shape.max_words, 2 * shape.hidden_size))
    label_params = {name: x for name, x in ours.params.items() if name != "encoder"}
    encoder_params = {"encoder": ours.params["encoder"]}
    return (
        label_params, encoder_params, states.astype(np.float32), batch.lengths, batch.label_ids, batch.label_mask
    )  # fmt: skip


def compiled(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Work:
    """Returns work that calls a compiled function; its facts have the size of the compiler's temporary buffers."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    facts = {"compile_s": time.perf_counter() - start}
    if analysis := program.memory_analysis():
        facts["temporary_mib"] = analysis.temp_size_in_bytes / 2**20
    arguments = jax.device_put(arguments)
    return per_call(lambda: jax.block_until_ready(program(*arguments)), **facts)
