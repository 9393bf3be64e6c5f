"""Our transformer with the proportions of MiniLM-L6 and random weights: fine-tuning, and states of documents."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cases import Shape
from benchmarks.harness.work import Work, per_call, per_item
from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.model.encoders.transformer import Transformer
from lsfa_jax.types import Params, PyTree


def _encoder(shape: Shape, precision: str) -> Transformer:
    architecture = Architecture(**shape.transformer, activation="gelu", norm_epsilon=1e-12, first_id=2, last_id=3)
    return Transformer(architecture, window=512, dtype=jnp.dtype(precision))


def _documents(shape: Shape, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns token ids and lengths of documents that fill T with the first and the last token."""
    size = shape.batch_size, shape.step_words - 2
    ids = np.random.default_rng(seed).integers(4, shape.vocabulary_size, size)
    return ids.astype(np.int32), np.full(size[0], size[1], np.int32)


def step(shape: Shape, seed: int, precision: str) -> Work:
    """Forward, backward and AdamW on one batch."""
    encoder, (ids, lengths) = _encoder(shape, precision), _documents(shape, seed)
    params = jax.jit(encoder.init)(jax.random.key(seed), ids[:1], lengths[:1])["params"]
    d_states = jax.random.normal(jax.random.key(1), (*ids.shape, encoder.state_size))
    optimizer = optax.adamw(1e-4)

    def loss(params: Params, ids: Any, lengths: Any, d_states: Any) -> jax.Array:
        return jnp.mean(encoder.apply({"params": params}, ids, lengths) * d_states)

    def update(state: PyTree, *batch: Any) -> PyTree:
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params, *batch), moments, params)
        return optax.apply_updates(params, updates), moments

    compiled = jax.jit(update, donate_argnums=0)
    # Placed on a device by name, as the result is: otherwise the second step would be compiled again.
    state = jax.device_put((params, optimizer.init(params)), jax.local_devices()[0])

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, ids, lengths, d_states))

    return per_call(run)


def states(shape: Shape, seed: int, precision: str) -> Work:
    """The states of the tokens of a batch of documents; the unit is a document."""
    encoder, (ids, lengths) = _encoder(shape, precision), _documents(shape, seed)
    params = jax.jit(encoder.init)(jax.random.key(seed), ids[:1], lengths[:1])
    compiled = jax.jit(encoder.apply)
    return per_item(len(ids), lambda: jax.block_until_ready(compiled(params, ids, lengths)))
