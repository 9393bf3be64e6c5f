"""Eq. 2-6 of all labels as one sum with its gradients: attention, feature head, classifiers, cross-entropy, in blocks.

The method spends most of its time here, and autodiff would hold B x L x T weights and B x L x D features for the way
back. But the cross-entropy of a label needs no other label: once its logits are known, so are its gradients. One pass
over blocks of labels gives both, nothing is computed twice, and one block's arrays are held at a time. The cotangent of
a sum is one number, so all that is left for the way back is to scale.

Shapes: B documents, T words, H hidden units a direction, D feature, L labels, K labels of one document, C labels of a
block.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lsfa_jax.model import classifier, encoder

Array = jax.Array


class Labels(NamedTuple):
    """What belongs to labels: a row each, or one row that all share."""

    queries: Array
    """float32[L, 2H], label embeddings e_l."""
    weights: Array
    """float32[L or 1, D], classifiers w_l."""
    bias: Array | None
    """float32[L or 1]."""


class Targets(NamedTuple):
    """Which labels are right, and what counts."""

    label_ids: Array
    """int32[B, K], the labels of each document, each once."""
    label_mask: Array
    """bool[B, K], false where `label_ids` is padding."""
    document_mask: Array
    """bool[B], false where the document is padding."""
    label_weights: Array | None = None
    """float32[L], how often a label's terms count; None: once."""


class _Gradients(NamedTuple):
    """Of the sum, each shaped as what it is of; None where nobody asks for it."""

    states: Any
    words: Any
    head_bias: Any
    labels: Any


def label_loss(
    states: Array, words: Array, mask: Array, head_bias: Array | None, labels: Labels, targets: Targets, block: int,
    dtype: Any = jnp.float32,
) -> Array:  # fmt: skip
    """Computes the sum of Eq. 6 over documents and all labels, with Eq. 2-5 before it.

    Equal to `classifier.binary_cross_entropy` of the scores of `encoder.label_features`, without holding more than a
    block of labels. Gradients of inputs that are not trained are not computed.

    Args:
        states: float32[B, T, 2H], word representations x, which decide the attention.
        words: float32[B, T, D], what `encoder.project_words` makes of them, which is attended to.
        mask: bool[B, T], false at padding.
        head_bias: float32[D], the feature head's; None without one.
        labels: the label tables.
        targets: the labels of each document.
        block: C, labels at a time; bounds memory, changes no figure.
        dtype: of the matrix products, float32 or bfloat16.

    Returns:
        float32 scalar, a sum: divide by documents x labels for a mean.
    """
    return _label_loss(block, dtype, mask, targets, states, words, head_bias, labels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _label_loss(
    block: int, dtype: Any, mask: Array, targets: Targets, states: Array, words: Array, head_bias: Array | None,
    labels: Labels,
) -> Array:  # fmt: skip
    wanted = _Gradients(None, None, None, jax.tree.map(lambda x: None, labels))
    return _sum_and_gradients(block, dtype, mask, targets, states, words, head_bias, labels, wanted)[0]


def _where(wanted: Any, tree: Any) -> Any:
    """Returns the parts of a tree for which `wanted` is not None, and None for the others."""
    return jax.tree.map(lambda w, x: None if w is None else x, wanted, tree, is_leaf=lambda w: w is None)


def _right_labels(targets: Targets, label_ids: Array) -> Array:
    """Returns float32[B, C], 1 where a document has one of the labels int32[C]."""
    same = targets.label_ids[..., None] == label_ids
    return jnp.any(same & targets.label_mask[..., None], axis=1).astype(jnp.float32)


def _is_primal(x: Any) -> bool:
    return hasattr(x, "perturbed")


def _forward(block: int, dtype: Any, *arguments: Any) -> tuple[Array, _Gradients]:
    """Looks which inputs are trained (`symbolic_zeros` says it), and computes their gradients with the sum."""
    inputs: Any = jax.tree.map(lambda x: x.value, arguments, is_leaf=_is_primal)
    wanted = jax.tree.map(lambda x: True if x.perturbed else None, arguments[2:], is_leaf=_is_primal)
    return _sum_and_gradients(block, dtype, *inputs, _Gradients(*wanted))


def _backward(block: int, dtype: Any, gradients: _Gradients, d_sum: Array) -> tuple[Any, ...]:
    return None, None, *jax.tree.map(lambda g: d_sum * g, gradients)


_label_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _sum_and_gradients(
    block: int, dtype: Any, mask: Array, targets: Targets, states: Array, words: Array, head_bias: Array | None,
    labels: Labels, wanted: _Gradients,
) -> tuple[Array, _Gradients]:  # fmt: skip
    num_labels = len(labels.queries)
    size = min(block, num_labels)
    blocks = -(-num_labels // size)
    counted = jnp.ones(num_labels) if targets.label_weights is None else targets.label_weights
    own = jax.tree.map(lambda x: x if len(x) == num_labels else None, labels)
    shared = jax.tree.map(lambda x: None if len(x) == num_labels else x, labels)

    def split(rows: Array) -> Array:
        """Deals rows into blocks; what is put in beyond L counts 0 times."""
        padded = jnp.pad(rows, ((0, blocks * size - num_labels), *((0, 0),) * (rows.ndim - 1)))
        return padded.reshape(blocks, size, *rows.shape[1:])

    def one_block(sums: tuple[Array, _Gradients], turn: Any) -> tuple[Any, Any]:
        total, gradients = sums
        rows, counted, first = turn
        queries, weights, bias = (a if b is None else b for a, b in zip(shared, rows, strict=True))

        attention = encoder.label_attention(states, mask, queries, dtype)
        attended = encoder.product("blt,btd->bld", attention, words, dtype)
        features = attended if head_bias is None else jax.nn.relu(attended + head_bias)
        logits = classifier.scores(features, weights, bias)
        right = _right_labels(targets, first + jnp.arange(size))
        counts = targets.document_mask[:, None] * counted
        total += jnp.sum(counts * (jax.nn.softplus(logits) - right * logits))

        # What nobody wants of the following, the compiler leaves out.
        d_logits = counts * (jax.nn.sigmoid(logits) - right)
        d_features = d_logits[..., None] * weights
        d_attended = d_features if head_bias is None else jnp.where(features > 0, d_features, 0.0)
        d_attention = encoder.product("bld,btd->blt", d_attended, words, dtype)
        # Of a softmax: the sum of alpha_t d_alpha_t over t is the inner product of what was attended and its gradient.
        d_scores = attention * (d_attention - jnp.sum(d_attended * attended, axis=-1, keepdims=True))
        d_rows: Any = Labels(
            queries=encoder.product("blt,bth->lh", d_scores, states, dtype),
            weights=jnp.einsum("bl,bld->ld", d_logits, features),
            bias=jnp.sum(d_logits, axis=0),
        )
        more = _Gradients(
            states=encoder.product("blt,lh->bth", d_scores, queries, dtype),
            words=encoder.product("blt,bld->btd", attention, d_attended, dtype),
            head_bias=jnp.sum(d_attended, axis=(0, 1)),
            labels=Labels(*(jnp.sum(x, axis=0, keepdims=True) for x in d_rows)),
        )
        gradients = jax.tree.map(jnp.add, gradients, _where(gradients, more))
        return (total, gradients), _where(_where(own, wanted.labels), d_rows)

    nothing = jax.tree.map(jnp.zeros_like, _where(wanted, _Gradients(states, words, head_bias, shared)))
    turns = jax.tree.map(split, own), split(counted), size * jnp.arange(blocks)
    (total, gradients), rows = jax.lax.scan(one_block, (jnp.zeros(()), nothing), turns)
    rows = jax.tree.map(lambda x: x.reshape(blocks * size, *x.shape[2:])[:num_labels], rows)
    rows = Labels(*(a if b is None else b for a, b in zip(gradients.labels, rows, strict=True)))
    return total, gradients._replace(labels=rows)
