"""Eq. 1-4: BiLSTM over the words, attention of every label over the words, feature head.

Shapes: B documents, T words (padded), E word vector, H hidden units a direction, L labels, K labels of one document,
D feature.
All functions are pure; padding is exact: what lies beyond a document's length changes no value and no gradient.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Mapping[str, Any]


def product(spec: str, a: Array, b: Array, dtype: Any = jnp.float32) -> Array:
    """Computes an einsum with its factors in `dtype` and its sum in float32.

    Args:
        spec: as for `jnp.einsum`.
        a: first factor.
        b: second factor.
        dtype: float32 or bfloat16.

    Returns:
        float32, of the shape that `spec` says.
    """
    return jnp.einsum(spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


@jax.custom_vjp
def lstm(projected: Array, w_hidden: Array, h0: Array, c0: Array) -> Array:
    """Runs one direction of an LSTM over time.

    The backward pass is written by hand: the gradient of `w_hidden` is one matrix product after the loop, where
    automatic differentiation would add up T small ones inside it.

    Args:
        projected: float32[T, B, 4H], W x_t + b of the gates i, f, g, o.
        w_hidden: float32 or bfloat16[H, 4H], recurrent weights.
        h0: float32[B, H], initial hidden state.
        c0: float32[B, H], initial cell state.

    Returns:
        float32[T, B, H], the hidden state after each word.
    """
    return _lstm_forward(projected, w_hidden, h0, c0)[0]


def _recurrent(h: Array, w: Array) -> Array:
    return jnp.dot(h.astype(w.dtype), w, preferred_element_type=jnp.float32)


def _gate_scales(hidden_size: int) -> Array:
    """Returns float32[4H], k of each gate: k tanh(k z) + 1 - k is sigmoid(z) for k = 1/2 and tanh(z) for k = 1.

    One formula for all four gates keeps them one array, which a CPU computes in half the time of four slices.
    """
    return jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5]), hidden_size)


def _lstm_forward(projected: Array, w_hidden: Array, h0: Array, c0: Array) -> tuple[Array, tuple[Array, ...]]:
    k = _gate_scales(w_hidden.shape[0])

    def step(carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        h, c = carry
        gates = k * jnp.tanh(k * (x + _recurrent(h, w_hidden))) + (1 - k)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, gates)

    _, (hidden, cells, gates) = jax.lax.scan(step, (h0, c0), projected)
    return hidden, (hidden, cells, gates, w_hidden, h0, c0)


def _lstm_backward(saved: tuple[Array, ...], d_hidden: Array) -> tuple[Array, Array, Array, Array]:
    hidden, cells, gates, w_hidden, h0, c0 = saved
    before = jnp.concatenate([h0[None], hidden[:-1]])
    cells_before = jnp.concatenate([c0[None], cells[:-1]])
    w_back, k = w_hidden.T, _gate_scales(w_hidden.shape[0])

    def step(carry: tuple[Array, Array], x: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        dh, dc = carry
        dh_out, c, c_before, gate = x
        i, f, g, o = jnp.split(gate, 4, axis=-1)
        tanh_c, dh = jnp.tanh(c), dh + dh_out
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        # The derivative of k tanh(k z) + 1 - k, written with its value.
        slope = k * k - (gate - (1 - k)) ** 2
        dz = jnp.concatenate([dc * g, dc * c_before, dc * i, dh * tanh_c], axis=-1) * slope
        return (_recurrent(dz, w_back), dc * f), dz

    zero = jnp.zeros_like(h0)
    (dh0, dc0), dz = jax.lax.scan(step, (zero, zero), (d_hidden, cells, cells_before, gates), reverse=True)
    # Two-dimensional, which a CPU does in 0.7 of the time of the same sum over two axes.
    flat = before.reshape(-1, before.shape[-1]), dz.reshape(-1, dz.shape[-1])
    d_w = product("nh,ng->hg", *flat, w_hidden.dtype).astype(w_hidden.dtype)
    return dz, d_w, dh0, dc0


lstm.defvjp(_lstm_forward, _lstm_backward)


def reversed_positions(lengths: Array, num_words: int) -> Array:
    """Returns int32[B, T], where each word goes when every document is turned round and its padding stays put."""
    t = jnp.arange(num_words)[None]
    return jnp.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)


def bilstm(params: Params, x: Array, lengths: Array, dtype: Any = jnp.float32) -> Array:
    """Computes Eq. 1, the hidden representation of each word from both sides.

    Args:
        params: for each of `forward` and `backward`: `w_input` [E, 4H], `w_hidden` [H, 4H], `bias` [4H] (gates i, f, g,
            o), `h0` [H] and `c0` [H], the learned initial states.
        x: float32[B, T, E], word vectors.
        lengths: int32[B], words of each document; 0 is allowed.
        dtype: of the matrix products, float32 or bfloat16.

    Returns:
        float32[B, T, 2H], zero beyond each document's length.
    """
    num_documents, num_words, _ = x.shape
    turn = reversed_positions(lengths, num_words)[..., None]

    def run(p: Params, x: Array) -> Array:
        # Time first, then one two-dimensional product for all words: an einsum over B x T x E is twice as slow on CPU.
        flat = x.swapaxes(0, 1).reshape(num_words * num_documents, -1)
        projected = product("ne,eg->ng", flat, p["w_input"], dtype) + p["bias"]
        start = [jnp.broadcast_to(p[name], (num_documents, p[name].shape[0])) for name in ("h0", "c0")]
        return lstm(projected.reshape(num_words, num_documents, -1), p["w_hidden"].astype(dtype), *start).swapaxes(0, 1)

    forward = run(params["forward"], x)
    backward = run(params["backward"], jnp.take_along_axis(x, turn, axis=1))
    both = jnp.concatenate([forward, jnp.take_along_axis(backward, turn, axis=1)], axis=-1)
    return both * word_mask(lengths, num_words)[..., None]


def word_mask(lengths: Array, num_words: int) -> Array:
    """Returns bool[B, T], true at words and false at padding."""
    return jnp.arange(num_words)[None] < lengths[:, None]


def label_attention(states: Array, mask: Array, queries: Array, dtype: Any = jnp.float32) -> Array:
    """Computes Eq. 4, how much each label attends to each word.

    Args:
        states: float32[B, T, 2H], word representations x of Eq. 1.
        mask: bool[B, T], false at padding.
        queries: float32[L, 2H], label embeddings e_l; or [B, K, 2H], other labels for each document.
        dtype: of the matrix product.

    Returns:
        float32[B, L or K, T]: sums to 1 over the words, exactly 0 at padding; all 0 for a document without words.
    """
    spec = "btd,ld->blt" if queries.ndim == 2 else "btd,bld->blt"
    scores = product(spec, states, queries, dtype)
    mask = mask[:, None]
    return jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1) * mask


def project_words(states: Array, head: Params | None, dtype: Any = jnp.float32) -> Array:
    """Applies the feature head's matrix to the words, float32[B, T, D]; without a head returns the states.

    As attention weights sum to one and the head is linear up to here, alpha_l (x W) = (alpha_l x) W: the same numbers
    as attending first, with fewer operations, and no B x L x 2H array is ever held.
    """
    return states if head is None else product("bth,hd->btd", states, head["kernel"], dtype)


def label_features(attention: Array, words: Array, head_bias: Array | None, dtype: Any = jnp.float32) -> Array:
    """Computes Eq. 2-3, the label-specific features v_l = relu(alpha_l (x W) + b).

    Linear layer W, b and ReLU are the feature head that the released code adds to the paper's v_l = alpha_l x.

    Args:
        attention: float32[B, L, T], alpha of `label_attention`.
        words: float32[B, T, D], what `project_words` makes of the words, which is attended to.
        head_bias: float32[D]; None for the paper's bare attention (then D = 2H).
        dtype: of the matrix products.

    Returns:
        float32[B, L, D]. A document without words has relu(b), or 0 without the head.
    """
    features = product("blt,btd->bld", attention, words, dtype)
    return features if head_bias is None else jax.nn.relu(features + head_bias)


def few_label_features(
    states: Array, mask: Array, queries: Array, head: Params | None, dtype: Any = jnp.float32
) -> Array:
    """Computes Eq. 2-4 for some labels of each document, few beside its words.

    The same as `label_features`, but the head's matrix is applied to K attended states and not to T words.

    Args:
        states: float32[B, T, 2H], word representations x.
        mask: bool[B, T], false at padding.
        queries: float32[B, K, 2H], of the labels of each document.
        head: `kernel` [2H, D] and `bias` [D] of the feature head; None without one.
        dtype: of the matrix products.

    Returns:
        float32[B, K, D].
    """
    attended = product("bkt,bth->bkh", label_attention(states, mask, queries, dtype), states, dtype)
    if head is None:
        return attended
    return jax.nn.relu(product("bkh,hd->bkd", attended, head["kernel"], dtype) + head["bias"])
