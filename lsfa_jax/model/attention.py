"""Eq. 2-4: attention of each label over the tokens, label-specific features, and the feature head.

Shapes: B documents, T tokens (padded), H hidden units per direction, D feature, L labels, K labels of one document.
All functions are pure. Padding is exact: values beyond a document's length change no output and no gradient.
"""

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.types import Array, DTypeLike, Params

# Stands for minus infinity in a softmax: exp of it is 0, and its gradient is 0 instead of nan.
MINUS_INFINITY = -1e30


def product(spec: str, a: Array, b: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """Computes `jnp.einsum(spec, a, b)` in mixed precision: factors in `dtype`, accumulation and result in float32.

    In bfloat16 its gradients are products of the same kind: the cotangent is rounded, too. Automatic differentiation
    would leave it in float32, and a product of mixed factors runs at the rate of float32.

    Args:
        spec: subscripts, as for `jnp.einsum`; each letter stands in two of the three parts.
        a: first factor, float32.
        b: second factor, float32.
        dtype: float32 or bfloat16.

    Returns:
        float32 of the shape that `spec` describes.
    """
    compute = _product if jnp.dtype(dtype) == jnp.float32 else _rounded_product
    return compute(spec, dtype, a, b)


def _product(spec: str, dtype: DTypeLike, a: Array, b: Array) -> Array:
    a, b = a.astype(dtype), b.astype(dtype)
    if dtype != jnp.float32 and jax.default_backend() == "cpu":
        spec, a, b = _split_leading_sum(spec, a, b)
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _split_leading_sum(spec: str, a: Array, b: Array) -> tuple[str, Array, Array]:
    """Returns an equal product, in which an axis that leads both factors and is summed over is split in two.

    XLA on a CPU has no fast product in bfloat16 for a left factor whose rows are summed over, as in "ni,ng->ig"; but if
    two axes are summed over, it transposes the factor first. Measured on two cores with AVX512-BF16, GFLOP/s without
    and with the split: "ni,ng->ig" at 20,000 x 556 x 1,024 195 and 318 (float32: 207), "nh,nd->hd" at
    20,000 x 512 x 300 130 and 265 (float32: 144).
    """
    of_a, of_b, of_product = spec.replace("->", ",").split(",")
    summed = (set(of_a) & set(of_b)) - set(of_product)
    if len(summed) != 1:
        return spec, a, b
    (axis,) = summed
    size = a.shape[of_a.index(axis)]
    parts = next((n for n in (2, 3, 5, 7) if size % n == 0 and size > n), 1)
    separate = {x for x in of_product if (x in of_a) != (x in of_b)}
    leads = all(letters.index(axis) < letters.index(x) for letters in (of_a, of_b) for x in separate & set(letters))
    if parts == 1 or not leads:
        return spec, a, b

    def split(x: Array, letters: str) -> Array:
        before, after = x.shape[: letters.index(axis)], x.shape[letters.index(axis) + 1 :]
        return x.reshape(*before, parts, size // parts, *after)

    return spec.replace(axis, axis.upper() + axis), split(a, of_a), split(b, of_b)


_rounded_product = jax.custom_vjp(_product, nondiff_argnums=(0, 1))


def _rounded_product_forward(spec: str, dtype: DTypeLike, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    factors = a.astype(dtype), b.astype(dtype)
    return _product(spec, dtype, *factors), factors


def _rounded_product_backward(
    spec: str, dtype: DTypeLike, factors: tuple[Array, Array], d_product: Array
) -> tuple[Array, Array]:
    of_a, of_b, of_product = spec.replace("->", ",").split(",")
    d_a = _product(f"{of_product},{of_b}->{of_a}", dtype, d_product, factors[1])
    d_b = _product(f"{of_a},{of_product}->{of_b}", dtype, factors[0], d_product)
    return d_a, d_b


_rounded_product.defvjp(_rounded_product_forward, _rounded_product_backward)


def token_mask(lengths: Array, num_tokens: int) -> Array:
    """Returns bool[B, T], true at tokens and false at padding, from lengths int32[B] and T."""
    chex.assert_rank(lengths, 1)
    return jnp.arange(num_tokens)[None] < lengths[:, None]


def label_attention(states: Array, mask: Array, queries: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """Eq. 4: alpha_l = softmax(e_l^T x), the attention of each label over the tokens.

    Args:
        states: float32[B, T, 2H], token states x of Eq. 1.
        mask: bool[B, T], false at padding.
        queries: float32[L, 2H], label embeddings e_l; or [B, K, 2H], a separate set of labels for each document.
        dtype: of the matrix product.

    Returns:
        float32[B, L or K, T]: sums to 1 over the tokens, exactly 0 at padding; all 0 for a document without tokens.
    """
    chex.assert_rank((states, queries), (3, {2, 3}))
    chex.assert_shape(mask, states.shape[:2])
    chex.assert_equal_shape_suffix((states, queries), 1)
    spec = "btd,ld->blt" if queries.ndim == 2 else "btd,bld->blt"
    scores = product(spec, states, queries, dtype)
    mask = mask[:, None]
    return jax.nn.softmax(jnp.where(mask, scores, MINUS_INFINITY), axis=-1) * mask


def project_tokens(states: Array, head: Params | None, dtype: DTypeLike = jnp.float32) -> Array:
    """Applies the matrix W of the feature head to the tokens, x W; without a head returns the states.

    Attention is linear in the values, so (alpha_l x) W = alpha_l (x W). Projecting T tokens instead of L attended
    states takes fewer operations, and no [B, L, 2H] array is stored.

    Args:
        states: float32[B, T, 2H], token states x.
        head: `kernel` [2H, D] and `bias` [D]; None without a feature head.
        dtype: of the matrix product.

    Returns:
        float32[B, T, D]; without a head D = 2H.
    """
    return states if head is None else product("bth,hd->btd", states, head["kernel"], dtype)


def label_features(attention: Array, values: Array, head_bias: Array | None, dtype: DTypeLike = jnp.float32) -> Array:
    """Eq. 2-3: label-specific features v_l = relu(alpha_l (x W) + b).

    The linear layer W, b and the ReLU are the feature head, which the released code adds to the paper's
    v_l = alpha_l x.

    Args:
        attention: float32[B, L, T], alpha of `label_attention`.
        values: float32[B, T, D], x W of `project_tokens`.
        head_bias: float32[D], b; None for the paper's v_l = alpha_l x, where D = 2H.
        dtype: of the matrix product.

    Returns:
        float32[B, L, D]. A document without tokens has relu(b), or 0 without the head.
    """
    chex.assert_shape(attention, (values.shape[0], None, values.shape[1]))
    features = product("blt,btd->bld", attention, values, dtype)
    return features if head_bias is None else jax.nn.relu(features + head_bias)


def few_label_features(
    states: Array, mask: Array, queries: Array, head: Params | None, dtype: DTypeLike = jnp.float32
) -> Array:
    """Eq. 2-4 for K labels of each document, where K is small beside T.

    Gives the same values as `label_features`, but applies W to K attended states instead of T tokens.

    Args:
        states: float32[B, T, 2H], token states x.
        mask: bool[B, T], false at padding.
        queries: float32[B, K, 2H], label embeddings of the labels of each document.
        head: `kernel` [2H, D] and `bias` [D] of the feature head; None without one.
        dtype: of the matrix products.

    Returns:
        float32[B, K, D]; without a head D = 2H.
    """
    chex.assert_rank(queries, 3)
    attended = product("bkt,bth->bkh", label_attention(states, mask, queries, dtype), states, dtype)
    if head is None:
        return attended
    return jax.nn.relu(product("bkh,hd->bkd", attended, head["kernel"], dtype) + head["bias"])
