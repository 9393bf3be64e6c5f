"""One layer of a transformer with post-norm: layer norm, dense products, attention by head, feed-forward network.

What autodiff would compute slowly has an explicit backward pass. Shapes: W windows of S tokens, H hidden units,
N attention heads of D = H / N, I units of the feed-forward network. All functions are pure.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint
from jax.export import is_symbolic_dim

from lsfa_jax.model.attention import MINUS_INFINITY, product
from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.types import Array, DTypeLike, Params, PyTree


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: Array, scale: Array, bias: Array) -> Array:
    return _layer_norm_forward(epsilon, x, scale, bias)[0]


def _layer_norm_forward(epsilon: float, x: Array, scale: Array, bias: Array) -> tuple[Array, PyTree]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    return centred * inverse * scale + bias, (centred, inverse, scale)


def _layer_norm_backward(epsilon: float, stored: PyTree, d_out: Array) -> tuple[Array, Array, Array]:
    centred, inverse, scale = stored
    normed, d_normed = centred * inverse, d_out * scale
    rows = tuple(range(d_out.ndim - 1))
    d_x = d_normed - jnp.mean(d_normed, axis=-1, keepdims=True)
    d_x = inverse * (d_x - normed * jnp.mean(d_normed * normed, axis=-1, keepdims=True))
    return d_x, jnp.sum(d_out * normed, axis=rows), jnp.sum(d_out, axis=rows)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def layer_norm(params: Params, x: Array, epsilon: float) -> Array:
    """Normalises float32[..., H] over the last axis, then scales and shifts."""
    return _layer_norm(epsilon, x, params["scale"], params["bias"])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(dtype: DTypeLike, x: Array, kernel: Array) -> Array:
    """x W in mixed precision, with gradients that are products in `dtype`, too."""
    return product("nh,hi->ni", x, kernel, dtype)


def _matmul_forward(dtype: DTypeLike, x: Array, kernel: Array) -> tuple[Array, PyTree]:
    return _matmul(dtype, x, kernel), (x, kernel)


def _matmul_backward(dtype: DTypeLike, stored: PyTree, d_out: Array) -> tuple[Array, Array]:
    x, kernel = stored
    if x.shape[1] <= d_out.shape[1]:
        d_kernel = product("hn,ni->hi", _transposed(x), d_out, dtype)
    else:
        # The barrier keeps XLA from swapping the factors, which would be read by columns again.
        d_kernel = jax.lax.optimization_barrier(product("hn,ni->hi", _transposed(d_out), x, dtype)).T
    return product("ni,hi->nh", d_out, kernel, dtype).astype(x.dtype), d_kernel


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _transposed(x: Array) -> Array:
    """Swaps the last two axes in memory, as float32, which a CPU transposes faster than bfloat16.

    Without the constraint, XLA keeps the array as it is and multiplies by columns, which takes a CPU 2.5 times as long.
    A program that is exported, for a symbolic number of rows, has no layouts.
    """
    transposed = x.astype(jnp.float32).swapaxes(-1, -2)
    if any(map(is_symbolic_dim, x.shape)):
        return transposed
    return with_layout_constraint(transposed, Layout(tuple(range(x.ndim))))


def dense(params: Params, x: Array, dtype: DTypeLike) -> Array:
    """x W + b, float32[W S, O] from x float32[W S, I]; the product in `dtype`."""
    return _matmul(dtype, x, params["kernel"]) + params["bias"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(dtype: DTypeLike, qkv: Array, mask: Array) -> Array:
    """Attention by head, float32[W, S, N, D] from queries, keys and values float32[W, S, 3, N, D], mask bool[W, S].

    Scores are k q^T with the keys as rows, so that no product of the forward and backward pass reads a factor by
    columns, which takes a CPU three times as long. They stay divided by nothing: queries divide the result.
    """
    return _attend_forward(dtype, qkv, mask)[0]


def _attend_forward(dtype: DTypeLike, qkv: Array, mask: Array) -> tuple[Array, PyTree]:
    q, k, v = (x.astype(dtype) for x in qkv.transpose(2, 0, 3, 1, 4))
    scores = product("wnsd,wntd->wnst", k, q, dtype) * q.shape[-1] ** -0.5
    scores = jnp.where(mask[:, None, :, None], scores, MINUS_INFINITY)
    weights = jnp.exp(scores - jnp.max(scores, axis=2, keepdims=True))
    total = jnp.sum(weights, axis=2)
    weights = weights.astype(dtype)
    out = product("wnds,wnst->wndt", _transposed(v), weights, dtype) / total[:, :, None]
    return _transposed(out).swapaxes(1, 2), (q, k, v, weights, total, out)


def _attend_backward(dtype: DTypeLike, stored: PyTree, d_out: Array) -> tuple[Array, None]:
    q, k, v, weights, total, out = stored
    scale = q.shape[-1] ** -0.5
    d_out = d_out.transpose(0, 2, 1, 3) / total[..., None]
    mean = jnp.sum(d_out.swapaxes(2, 3) * out, axis=2, keepdims=True)
    # Without these barriers XLA computes in float32, or reads factors by columns.
    d_weights = jax.lax.optimization_barrier(product("wnsd,wntd->wnst", v, d_out, dtype))
    d_scores = (weights * (d_weights - mean)).astype(dtype)
    d_q = jax.lax.optimization_barrier(product("wnds,wnst->wndt", _transposed(k), d_scores, dtype))
    d_q = d_q.swapaxes(2, 3) * scale
    d_k = product("wnst,wntd->wnsd", d_scores, q, dtype) * scale
    d_v = product("wnst,wntd->wnsd", weights, d_out, dtype)
    return jnp.stack([d_q, d_k, d_v]).transpose(1, 3, 0, 2, 4), None


_attend.defvjp(_attend_forward, _attend_backward)


def fused_attention(dtype: DTypeLike, qkv: Array, mask: Array) -> Array:
    """Attention by head, by `jax.nn.dot_product_attention`: on a GPU by cuDNN, without stored scores, where it can.

    cuDNN computes in 16 bits, with D of 32, 64, 96 or 128; elsewhere XLA does.

    Args:
        dtype: of the products, float32 or bfloat16.
        qkv: float32[W, S, 3, N, D], queries, keys and values.
        mask: bool[W, S], true at the first tokens of each window.

    Returns:
        float32[W, S, N, D].
    """
    q, k, v = (x.astype(dtype) for x in jnp.moveaxis(qkv, 2, 0))
    has_cudnn = jax.default_backend() == "gpu" and jnp.dtype(dtype).itemsize == 2
    implementation: Literal["cudnn", "xla"] = "cudnn" if has_cudnn and q.shape[-1] in (32, 64, 96, 128) else "xla"
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    out = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths, implementation=implementation)
    return out.astype(jnp.float32)


def self_attention(params: Params, x: Array, mask: Array, num_heads: int, dtype: DTypeLike) -> Array:
    """Attention of each token over the tokens of its window, softmax(q k^T / sqrt(D)) v by head, then a dense layer.

    Args:
        params: `qkv` and `output`, dense layers H -> 3H and H -> H.
        x: float32[W S, H].
        mask: bool[W, S], false at padding.
        num_heads: N, of size D = H / N.
        dtype: of the matrix products.

    Returns:
        float32[W S, H].
    """
    qkv = dense(params["qkv"], x, dtype).reshape(*mask.shape, 3, num_heads, -1)
    attend = _attend if jax.default_backend() == "cpu" else fused_attention
    return dense(params["output"], attend(dtype, qkv, mask).reshape(x.shape), dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gelu(dtype: DTypeLike, z: Array) -> Array:
    """z Phi(z), rounded to `dtype`; the derivative is stored instead of computed again."""
    return (0.5 * z * (1 + jax.lax.erf(z * 0.5**0.5))).astype(dtype)


def _gelu_forward(dtype: DTypeLike, z: Array) -> tuple[Array, Array]:
    phi = 0.5 * (1 + jax.lax.erf(z * 0.5**0.5))
    derivative = phi + z * jnp.exp(-0.5 * z * z) * (2 * np.pi) ** -0.5
    return (z * phi).astype(dtype), derivative.astype(dtype)


def _gelu_backward(dtype: DTypeLike, derivative: Array, d_out: Array) -> tuple[Array]:
    return (d_out.astype(jnp.float32) * derivative,)


_gelu.defvjp(_gelu_forward, _gelu_backward)


def activate(z: Array, name: str, dtype: DTypeLike) -> Array:
    """Applies the activation of the feed-forward network; the result is a factor of a product in `dtype`."""
    if name == "gelu":
        return _gelu(dtype, z)
    return (jax.nn.relu(z) if name == "relu" else jax.nn.gelu(z, approximate=True)).astype(dtype)


def layer(params: Params, x: Array, mask: Array, architecture: Architecture, dtype: DTypeLike) -> Array:
    """One layer: attention, then the feed-forward network, each followed by a residual sum and a layer norm.

    Args:
        params: of the layer, as `transformer.param_shapes` has them.
        x: float32[W S, H].
        mask: bool[W, S], false at padding.
        architecture: sizes.
        dtype: of the products, float32 or bfloat16.

    Returns:
        float32[W S, H].
    """
    epsilon = architecture.norm_epsilon
    attended = self_attention(params["attention"], x, mask, architecture.num_heads, dtype)
    x = layer_norm(params["attention"]["norm"], x + attended, epsilon)
    hidden = activate(dense(params["feed_forward"]["inner"], x, dtype), architecture.activation, dtype)
    return layer_norm(
        params["feed_forward"]["norm"], x + dense(params["feed_forward"]["output"], hidden, dtype), epsilon
    )
