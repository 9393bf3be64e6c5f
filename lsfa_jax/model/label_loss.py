"""Eq. 2-6 of all labels, in tiles of documents x labels: logits, and the cross-entropy with its gradients in one pass.

The method spends most of its time here, and autodiff would hold B x L x T weights and B x L x D features for the way
back. But the cross-entropy of a document and a label needs no other one: once its logit is known, so are its gradients.
So each tile is computed once, its gradients are added up, and nothing of it is kept. The cotangent of a sum is one
number: all that is left for the way back is to scale.

Shapes: B documents, T words, H hidden units a direction, D feature, L labels, K labels of one document; of a tile: G
documents, C labels.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lsfa_jax.model import classifier
from lsfa_jax.model.attention import label_attention, label_features, product

Array = jax.Array


class Labels(NamedTuple):
    """What belongs to labels: a row each, or one row that all share."""

    queries: Array
    """float32[L, 2H], label embeddings e_l."""
    weights: Array
    """float32[L or 1, D], classifiers w_l."""
    bias: Array | None
    """float32[L or 1]."""


class Words(NamedTuple):
    """What is known of the words."""

    states: Array
    """float32[B, T, 2H], word representations x, which decide the attention."""
    values: Array
    """float32[B, T, D], what `project_words` makes of them, which is attended to."""
    mask: Array
    """bool[B, T], false at padding."""


class Targets(NamedTuple):
    """Which labels are right."""

    label_ids: Array
    """int32[B, K], the labels of each document, each once."""
    label_mask: Array
    """bool[B, K], false where `label_ids` is padding."""
    document_mask: Array
    """bool[B], false where the document is padding."""


class Tile(NamedTuple):
    """How much is computed at a time; bounds memory, changes no figure."""

    labels: int
    """C, or somewhat less, so that blocks are even."""
    words: int
    """Words of the documents at a time (G x T); 0: all documents. A CPU likes tiles that its caches hold."""
    shards: int = 1
    """Devices that the documents are split over: G is a multiple of it."""

    def documents(self, num_documents: int, num_words: int) -> int:
        """Returns G, the largest part of B within the bound."""
        if not self.words:
            return num_documents
        shards = math.gcd(self.shards, num_documents)
        share = num_documents // shards
        fits = [n for n in range(1, share + 1) if share % n == 0 and n * shards * num_words <= self.words]
        return shards * max(fits, default=1)


def scores(words: Words, head_bias: Array | None, labels: Labels, tile: Tile, dtype: Any = jnp.float32) -> Array:
    """Computes Eq. 2-5, the logits float32[B, L]; arguments as for `loss`."""
    deal = _Deal(words.mask.shape, len(labels.queries), tile)
    own, shared = deal.own(labels), deal.shared(labels)

    def one_block(rows: Any) -> Array:
        both = Labels(*(a if b is None else b for a, b in zip(shared, rows, strict=True)))
        return jax.lax.map(lambda some: _logits(some, head_bias, both, dtype)[-1], documents)

    documents = jax.tree.map(deal.documents, words)
    logits = jax.lax.map(one_block, jax.tree.map(deal.labels, own))
    # blocks, turns, G, C -> G, turns, blocks, C: a document's number is G's first.
    return logits.transpose(2, 1, 0, 3).reshape(len(words.mask), -1)[:, : deal.num_labels]


def loss(
    words: Words,
    head_bias: Array | None,
    labels: Labels,
    targets: Targets,
    tile: Tile,
    dtype: Any = jnp.float32,
    label_weights: Array | None = None,
) -> Array:
    """Computes the sum of Eq. 6 over documents and all labels, with Eq. 2-5 before it.

    Equal to `classifier.binary_cross_entropy` of `scores`, without holding more than a tile. Gradients of inputs that
    are not trained are not computed.

    Args:
        words: the documents' words.
        head_bias: float32[D], the feature head's; None without one.
        labels: the label tables.
        targets: the labels of each document.
        tile: what is computed at a time.
        dtype: of the matrix products, float32 or bfloat16.
        label_weights: float32[L], how often a label's terms count, taken as constants; None: once.

    Returns:
        float32 scalar, a sum: divide by documents x labels for a mean.
    """
    counted = jnp.ones(len(labels.queries)) if label_weights is None else label_weights
    return _loss(tile, dtype, words.mask, targets, counted, words.states, words.values, head_bias, labels)


class _Gradients(NamedTuple):
    """Of the sum, each shaped as what it is of; None where nobody asks for it."""

    states: Any
    values: Any
    head_bias: Any
    labels: Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(tile: Tile, dtype: Any, *inputs: Any) -> Array:
    nothing = _Gradients(*jax.tree.map(lambda x: None, inputs[3:]))
    return _sum_and_gradients(tile, dtype, nothing, *inputs)[0]


def _forward(tile: Tile, dtype: Any, *inputs: Any) -> tuple[Array, _Gradients]:
    def is_input(x: Any) -> bool:
        return hasattr(x, "perturbed")

    # Because of `symbolic_zeros`, inputs say whether they are trained.
    wanted = jax.tree.map(lambda x: True if x.perturbed else None, inputs[3:], is_leaf=is_input)
    values = jax.tree.map(lambda x: x.value, inputs, is_leaf=is_input)
    return _sum_and_gradients(tile, dtype, _Gradients(*wanted), *values)


def _backward(tile: Tile, dtype: Any, gradients: _Gradients, d_sum: Array) -> tuple[Any, ...]:
    return None, None, None, *jax.tree.map(lambda g: d_sum * g, gradients)


_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _sum_and_gradients(
    tile: Tile, dtype: Any, wanted: _Gradients, mask: Array, targets: Targets, counted: Array, states: Array,
    values: Array, head_bias: Array | None, labels: Labels,
) -> tuple[Array, _Gradients]:  # fmt: skip
    deal = _Deal(mask.shape, len(labels.queries), tile)
    own, shared = deal.own(labels), deal.shared(labels)
    documents = jax.tree.map(deal.documents, (Words(states, values, mask), targets))

    def one_block(sums: Any, block: Any) -> tuple[Any, Any]:
        """All documents with one block of labels, whose rows' gradients are whole at the end."""
        total, d_documents, d_head_bias, d_shared = sums
        rows, counted, label_ids = block
        both = Labels(*(a if b is None else b for a, b in zip(shared, rows, strict=True)))

        def one_tile(sums: Any, turn: Any) -> tuple[Any, Any]:
            (words, targets), d_documents = turn
            term, more = _tile(words, targets, head_bias, both, label_ids, counted, dtype)
            over_labels = Labels(*(jnp.sum(x, axis=0, keepdims=True) for x in more.labels))
            sums = jax.tree.map(jnp.add, sums, _where(sums, (term, more.head_bias, over_labels, more.labels)))
            return sums, jax.tree.map(jnp.add, d_documents, _where(d_documents, (more.states, more.values)))

        d_rows = jax.tree.map(jnp.zeros_like, _where(wanted.labels, rows))
        sums, d_documents = jax.lax.scan(one_tile, (total, d_head_bias, d_shared, d_rows), (documents, d_documents))
        total, d_head_bias, d_shared, d_rows = sums
        return (total, d_documents, d_head_bias, d_shared), d_rows

    words = documents[0]
    start = _where((wanted.states, wanted.values), (words.states, words.values)), _where(wanted.head_bias, head_bias)
    nothing = jax.tree.map(jnp.zeros_like, (*start, _where(wanted.labels, shared)))
    blocks = jax.tree.map(deal.labels, own), deal.labels(counted), deal.labels(jnp.arange(deal.num_labels))
    (total, d_documents, d_head_bias, d_shared), d_rows = jax.lax.scan(one_block, (jnp.zeros(()), *nothing), blocks)
    d_rows = jax.tree.map(deal.back_to_labels, d_rows)
    d_labels = Labels(*(a if b is None else b for a, b in zip(d_shared, d_rows, strict=True)))
    d_states, d_values = jax.tree.map(deal.back_to_documents, d_documents)
    return total, _Gradients(d_states, d_values, d_head_bias, d_labels)


def _logits(words: Words, head_bias: Array | None, labels: Labels, dtype: Any) -> tuple[Array, Array, Array]:
    """Returns attention [G, C, T], features [G, C, D] and logits [G, C]."""
    attention = label_attention(words.states, words.mask, labels.queries, dtype)
    features = label_features(attention, words.values, head_bias, dtype)
    return attention, features, classifier.scores(features, labels.weights, labels.bias)


def _tile(
    words: Words, targets: Targets, head_bias: Array | None, labels: Labels, label_ids: Array, counted: Array,
    dtype: Any,
) -> tuple[Array, _Gradients]:  # fmt: skip
    """Computes the sum of Eq. 6 over one tile, and its gradients; those of labels have a row each.

    What nobody wants of them, the compiler leaves out.
    """
    attention, features, logits = _logits(words, head_bias, labels, dtype)
    same = targets.label_ids[..., None] == label_ids
    right = jnp.any(same & targets.label_mask[..., None], axis=1).astype(jnp.float32)
    counts = targets.document_mask[:, None] * counted
    total = jnp.sum(counts * (jax.nn.softplus(logits) - right * logits))

    d_logits = counts * (jax.nn.sigmoid(logits) - right)
    d_features = d_logits[..., None] * labels.weights
    d_attended = d_features if head_bias is None else jnp.where(features > 0, d_features, 0.0)
    d_attention = product("bld,btd->blt", d_attended, words.values, dtype)
    # Of a softmax: the sum of alpha_t d_alpha_t over t is the inner product of what was attended and its gradient.
    # Where that gradient is not cut off, the features are what was attended and the bias.
    attended = features if head_bias is None else features - head_bias
    d_scores = attention * (d_attention - jnp.sum(d_attended * attended, axis=-1, keepdims=True))
    return total, _Gradients(
        states=product("blt,lh->bth", d_scores, labels.queries, dtype),
        values=product("blt,bld->btd", attention, d_attended, dtype),
        head_bias=jnp.sum(d_attended, axis=(0, 1)),
        labels=Labels(
            queries=product("blt,bth->lh", d_scores, words.states, dtype),
            weights=jnp.einsum("bl,bld->ld", d_logits, features),
            bias=jnp.sum(d_logits, axis=0),
        ),
    )


def _where(wanted: Any, tree: Any) -> Any:
    """Returns the parts of a tree for which `wanted` is not None, and None for the others."""
    return jax.tree.map(lambda w, x: None if w is None else x, wanted, tree, is_leaf=lambda w: w is None)


class _Deal:
    """Deals rows of documents and of labels into turns, and back."""

    def __init__(self, shape: tuple[int, ...], num_labels: int, tile: Tile) -> None:
        self.num_labels = num_labels
        self._blocks = -(-num_labels // tile.labels)
        # As even as can be: a last block of few labels would cost what a whole one does.
        self._size = -(-num_labels // self._blocks)
        self._group = tile.documents(*shape)
        self._turns = shape[0] // self._group

    def own(self, labels: Labels) -> Any:
        """Keeps the tables that have a row a label."""
        return jax.tree.map(lambda x: x if len(x) == self.num_labels else None, labels)

    def shared(self, labels: Labels) -> Any:
        """Keeps the tables of which all labels share the one row."""
        return jax.tree.map(lambda x: None if len(x) == self.num_labels else x, labels)

    def labels(self, rows: Array) -> Array:
        """[L, ...] -> [blocks, C, ...]; zeros beyond L, which as weights make them count 0 times."""
        padding = ((0, self._blocks * self._size - self.num_labels), *((0, 0),) * (rows.ndim - 1))
        return jnp.pad(rows, padding).reshape(self._blocks, self._size, *rows.shape[1:])

    def back_to_labels(self, x: Array) -> Array:
        """[blocks, C, ...] -> [L, ...]."""
        return x.reshape(-1, *x.shape[2:])[: self.num_labels]

    def documents(self, x: Array) -> Array:
        """[B, ...] -> [turns, G, ...]; G first, so that documents stay on the devices that they are split over."""
        return x.reshape(self._group, self._turns, *x.shape[1:]).swapaxes(0, 1)

    def back_to_documents(self, x: Array) -> Array:
        """[turns, G, ...] -> [B, ...]."""
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
