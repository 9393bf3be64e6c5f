"""Eq. 1 by cuDNN's LSTM on an NVIDIA GPU: one call instead of a loop over the tokens.

Tested on CPUs against `bilstm.by_loop`, with JAX's reference `lstm_ref` in place of cuDNN.
"""

import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jax.extend import backend

from lsfa_jax.types import Array, Params
from lsfa_jax.util import sharding


def is_available() -> bool:
    """Whether JAX computes on one NVIDIA GPU; XLA does not split a call of cuDNN over several."""
    return (
        jax.default_backend() == "gpu"
        and len(sharding.devices_of_job()) == 1
        and "cuda" in backend.get_backend().platform_version.lower()
    )


def bilstm(params: Params, x: Array, mask: Array) -> Array:
    """Eq. 1: the state of each token, from both directions.

    cuDNN rounds the factors of matrix products to TF32, unless `jax_default_matmul_precision` is `highest`.

    Args:
        params: of both directions, as for `bilstm.bilstm`.
        x: float32[B, T, E], token embeddings.
        mask: bool[B, T], true at the first tokens of each document; may be false everywhere.

    Returns:
        float32[B, T, 2H], zero where the mask is false.
    """
    directions = params["forward"], params["backward"]
    num_documents, _, embedding_size = x.shape
    hidden_size = len(directions[0]["h0"])

    def initial(name: str) -> Array:
        return jnp.stack([jnp.broadcast_to(p[name], (num_documents, hidden_size)) for p in directions])

    states, _, _ = rnn.lstm(
        jnp.where(mask[..., None], x, 0.0),
        initial("h0"),
        initial("c0"),
        _packed(directions),
        # cuDNN refuses lengths of 0. The one state that it computes instead is masked, and with it the gradients.
        jnp.maximum(jnp.sum(mask, axis=1, dtype=jnp.int32), 1),
        input_size=embedding_size,
        hidden_size=hidden_size,
        num_layers=1,
        dropout=0.0,
        bidirectional=True,
    )
    return jnp.where(mask[..., None], states, 0.0)


def _packed(directions: tuple[Params, Params]) -> Array:
    """Returns the parameters as cuDNN's vector: all matrices, transposed, then all biases.

    cuDNN has the order of gates i, f, g, o too, and adds two biases to each of them, of which the second stays zero.
    """
    matrices = [p[name].T.ravel() for p in directions for name in ("w_input", "w_hidden")]
    biases = [bias for p in directions for bias in (p["bias"], jnp.zeros_like(p["bias"]))]
    return jnp.concatenate([*matrices, *biases])
