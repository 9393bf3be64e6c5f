"""Eq. 2-4: attention of every label over the words, feature head.

Shapes: B documents, T words (padded), H hidden units a direction, L labels, K labels of one document, D feature.
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
