"""Our BiLSTM and our label attention by themselves."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import documents as shapes
from benchmarks.harness.work import Work, once
from benchmarks.ours import model as ours_model
from lsfa_jax.model.encoders import bilstm
from lsfa_jax.model.lsfa import Lsfa


def lstm(shape: str, seed: int) -> Work:
    """Gradients of weights and inputs of a BiLSTM, all texts of the longest length."""
    own = shapes.SHAPES[shape]
    key = jax.random.key(seed)

    def uniform(number: int, *size: int) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, number), size, minval=-1, maxval=1) * own.hidden**-0.5

    params = {
        side: {
            "w_input": uniform(4 * i, own.embedding, 4 * own.hidden),
            "w_hidden": uniform(4 * i + 1, own.hidden, 4 * own.hidden),
            "bias": uniform(4 * i + 2, 4 * own.hidden),
            "h0": jnp.zeros(own.hidden),
            "c0": jnp.zeros(own.hidden),
        }
        for i, side in enumerate(("forward", "backward"))
    }
    x = jax.random.normal(jax.random.fold_in(key, 8), (own.batch, own.max_words, own.embedding))
    d_states = jax.random.normal(jax.random.fold_in(key, 9), (own.batch, own.max_words, 2 * own.hidden))
    lengths = jnp.full(own.batch, own.max_words)

    @jax.jit
    def gradients(params: Any, x: jax.Array, lengths: jax.Array, d_states: jax.Array) -> Any:
        return jax.grad(lambda p, x: jnp.sum(bilstm.bilstm(p, x, lengths) * d_states), argnums=(0, 1))(params, x)

    return once(lambda: jax.block_until_ready(gradients(params, x, lengths, d_states)))


def label_attention(shape: str, seed: int) -> Work:
    """The loss over all labels, with its gradients by token states and weights."""
    ours = ours_model.make(shape, seed)
    own, rest, *arguments = attention_arguments(ours)

    def loss(own: Any, states: Any, rest: Any, lengths: Any, label_ids: Any, label_mask: Any) -> Any:
        variables = {"params": rest | own}
        rows = jnp.ones(len(lengths), bool)
        return ours.model.apply(variables, states, lengths, label_ids, label_mask, rows, method=Lsfa.loss)

    states, *labels = arguments
    return compiled(jax.value_and_grad(loss, argnums=(0, 1)), (own, states, rest, *labels))


def attention_arguments(ours: ours_model.Ours) -> tuple[Any, ...]:
    """Returns what a label attention is given.

    The weights from the label queries on, the other weights, token states float32[B, T, 2H], lengths int32[B], and
    label ids and their mask [B, K], of documents that nearly fill T.
    """
    shape = ours.shape
    batch = ours.batch(shapes.step_rows(ours.documents, shape, shape.max_words), shape.max_words)
    states = np.random.default_rng(0).uniform(-1, 1, (shape.batch, shape.max_words, 2 * shape.hidden))
    own = {name: x for name, x in ours.params.items() if name.startswith(("label_", "head_", "classifier"))}
    rest = {name: x for name, x in ours.params.items() if name not in own}
    return own, rest, states.astype(np.float32), batch.lengths, batch.label_ids, batch.label_mask


def compiled(function: Any, arguments: tuple[Any, ...]) -> Work:
    """Returns work that calls a compiled function; its facts say what the compiler sets aside for temporaries."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    facts = {"compile_s": time.perf_counter() - start}
    if analysis := program.memory_analysis():
        facts["temporary_mib"] = analysis.temp_size_in_bytes / 2**20
    arguments = jax.device_put(arguments)
    return once(lambda: jax.block_until_ready(program(*arguments)), **facts)
