"""Eq. 2-6 for all labels, in tiles of documents x labels: logits, and the cross-entropy with its gradients in one pass.

Training spends most of its time in this loss. Automatic differentiation would store attention [B, L, T] and features
[B, L, D] of all labels for the backward pass. But the cross-entropy of one document and one label depends on no other
pair: once its logit is known, so are its gradients. Each tile is therefore computed once, its gradients are added to
the sums, and its intermediate arrays are discarded. As the cotangent of a sum is a scalar, the backward pass only
scales the stored gradients.

Shapes: B documents, T tokens, H hidden units per direction, D feature, L labels, K labels of one document. Of one tile:
G documents, C labels.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from lsfa_jax.model import classifier
from lsfa_jax.model.attention import label_attention, label_features, product
from lsfa_jax.types import Array, DTypeLike, PyTree


class LabelTables(NamedTuple):
    """The parameters of the labels: one row per label, or a single row shared by all labels."""

    queries: Array
    """float32[L, 2H], label embeddings e_l."""
    weights: Array
    """float32[L or 1, D], classifiers w_l."""
    bias: Array | None
    """float32[L or 1]."""


def has_label_rows(table: Array, num_rows: int) -> bool:
    """Whether a label table has one row per label, rather than a single row shared by all labels."""
    return len(table) == num_rows


class Tokens(NamedTuple):
    """Keys and values of the attention."""

    states: Array
    """float32[B, T, 2H], token states x of Eq. 1: the keys."""
    values: Array
    """float32[B, T, D], `attention.project_tokens` of the states: the values."""
    mask: Array
    """bool[B, T], false at padding."""


class Targets(NamedTuple):
    """The labels y of each document."""

    label_ids: Array
    """int32[B, K], the labels of each document, each once."""
    label_mask: Array
    """bool[B, K], false where `label_ids` is padding."""
    document_mask: Array
    """bool[B], false where the document is padding."""


class TileSize(NamedTuple):
    """Bounds of a tile. They bound peak memory; results agree up to rounding."""

    labels: int
    """Most labels of a block on one device; blocks are equal in size, so that C may be smaller."""
    tokens: int
    """Upper bound of G x T, so that a tile fits into a CPU's caches; 0: G = B."""
    shards: int = 1
    """Size of the mesh's axis `data`, over which the documents are sharded: G is a multiple of it."""
    label_shards: int = 1
    """Size of the axis `label`, over which the tables are sharded: where it divides L, C has as many labels of each."""

    def num_documents(self, batch_size: int, num_tokens: int) -> int:
        """Returns G, the largest divisor of B within the bound; of a symbolic B, as programs are exported with, B."""
        if not self.tokens or is_symbolic_dim(batch_size):
            return batch_size
        shards = math.gcd(self.shards, batch_size)
        shard_size = batch_size // shards
        divisors = (n for n in range(1, shard_size + 1) if shard_size % n == 0)
        return shards * max((n for n in divisors if n * shards * num_tokens <= self.tokens), default=1)


def scores(
    tokens: Tokens, head_bias: Array | None, labels: LabelTables, tile_size: TileSize, dtype: DTypeLike = jnp.float32
) -> Array:
    """Eq. 2-5: the logits of all labels, before the sigmoid.

    Args:
        tokens: token states and values of the documents.
        head_bias: float32[D], bias of the feature head; None without one.
        labels: the label tables.
        tile_size: bounds of a tile.
        dtype: of the matrix products, float32 or bfloat16.

    Returns:
        float32[B, L].
    """
    _check_shapes(tokens, labels)
    tiling = Tiling(tokens.mask.shape, len(labels.queries), tile_size)
    shared = tiling.shared(labels)

    def tile_logits(tokens: Tokens, rows: LabelTables) -> Array:
        return _logits(tokens, head_bias, _merge(shared, rows), dtype)[-1]

    return tiling.mapped(tile_logits, tokens, tiling.per_label(labels))


def loss(
    tokens: Tokens,
    head_bias: Array | None,
    labels: LabelTables,
    targets: Targets,
    tile_size: TileSize,
    dtype: DTypeLike = jnp.float32,
    label_weights: Array | None = None,
) -> Array:
    """Eq. 2-6: binary cross-entropy summed over documents and all labels.

    Equal to `classifier.binary_cross_entropy` of `scores`, in the memory of one tile. Gradients are computed only for
    inputs that are differentiated.

    Args:
        tokens: token states and values of the documents.
        head_bias: float32[D], bias of the feature head; None without one.
        labels: the label tables.
        targets: the labels of each document.
        tile_size: bounds of a tile.
        dtype: of the matrix products, float32 or bfloat16.
        label_weights: float32[L], weight of each label's terms, without a gradient; or [B, L], of each document and
            label; None: all 1.

    Returns:
        float32 scalar, a sum; divide by documents x labels for a mean.
    """
    _check_shapes(tokens, labels)
    chex.assert_equal_shape((targets.label_ids, targets.label_mask))
    chex.assert_equal_shape_prefix((tokens.states, targets.label_ids, targets.document_mask), 1)
    weights = jnp.ones(len(labels.queries)) if label_weights is None else label_weights
    return _loss(tile_size, dtype, tokens.mask, targets, weights, tokens.states, tokens.values, head_bias, labels)


def _check_shapes(tokens: Tokens, labels: LabelTables) -> None:
    chex.assert_rank((tokens.states, tokens.values, labels.queries, labels.weights), (3, 3, 2, 2))
    chex.assert_equal_shape_prefix(tokens, 2)
    chex.assert_equal_shape_suffix((tokens.states, labels.queries), 1)
    chex.assert_equal_shape_suffix((tokens.values, labels.weights), 1)


class _Gradients(NamedTuple):
    """Gradients of the sum, each of the shape of its input; None for inputs that are not differentiated."""

    states: PyTree
    values: PyTree
    head_bias: PyTree
    labels: PyTree


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(tile_size: TileSize, dtype: DTypeLike, *inputs: PyTree) -> Array:
    no_gradients = _Gradients(*jax.tree.map(lambda x: None, inputs[3:]))
    return _sum_and_gradients(tile_size, dtype, no_gradients, *inputs)[0]


def _loss_forward(tile_size: TileSize, dtype: DTypeLike, *inputs: PyTree) -> tuple[Array, _Gradients]:
    def is_input(x: object) -> bool:
        return hasattr(x, "perturbed")

    # `symbolic_zeros` passes each input with a flag: whether it is differentiated.
    requested = jax.tree.map(lambda x: True if x.perturbed else None, inputs[3:], is_leaf=is_input)
    values = jax.tree.map(lambda x: x.value, inputs, is_leaf=is_input)
    return _sum_and_gradients(tile_size, dtype, _Gradients(*requested), *values)


def _loss_backward(tile_size: TileSize, dtype: DTypeLike, gradients: _Gradients, d_sum: Array) -> tuple[PyTree, ...]:
    return None, None, None, *jax.tree.map(lambda g: d_sum * g, gradients)


_loss.defvjp(_loss_forward, _loss_backward, symbolic_zeros=True)


def _sum_and_gradients(
    tile_size: TileSize, dtype: DTypeLike, requested: _Gradients, mask: Array, targets: Targets, label_weights: Array,
    states: Array, values: Array, head_bias: Array | None, labels: LabelTables,
) -> tuple[Array, _Gradients]:  # fmt: skip
    """Computes Eq. 6 and its requested gradients: a scan over blocks of labels, and in it one over tiles of documents.

    A label's gradients are complete after its block. The gradients of documents and of shared parameters are carried
    through both scans.
    """
    tiling = Tiling(mask.shape, len(labels.queries), tile_size)
    per_label, shared = tiling.per_label(labels), tiling.shared(labels)
    tokens, targets = jax.tree.map(tiling.tile_documents, (Tokens(states, values, mask), targets))

    def add_label_block(sums: PyTree, block: PyTree) -> tuple[PyTree, PyTree]:
        total, d_documents, d_head_bias, d_shared = sums
        rows, weights, label_ids = block
        block_tables = _merge(shared, rows)

        def add_tile(sums: PyTree, tile: PyTree) -> tuple[PyTree, PyTree]:
            (tokens, targets), weights, d_documents = tile
            tile_sum, d = _tile_sum_and_gradients(tokens, targets, head_bias, block_tables, label_ids, weights, dtype)
            over_labels = LabelTables(*(jnp.sum(x, axis=0, keepdims=True) for x in d.labels))
            sums = jax.tree.map(jnp.add, sums, _where(sums, (tile_sum, d.head_bias, over_labels, d.labels)))
            return sums, jax.tree.map(jnp.add, d_documents, _where(d_documents, (d.states, d.values)))

        d_rows = jax.tree.map(jnp.zeros_like, _where(requested.labels, rows))
        start = total, d_head_bias, d_shared, d_rows
        (total, d_head_bias, d_shared, d_rows), d_documents = jax.lax.scan(
            add_tile, start, ((tokens, targets), tiling.tile_weights(weights), d_documents)
        )
        return (total, d_documents, d_head_bias, d_shared), d_rows

    d_documents = _where((requested.states, requested.values), (tokens.states, tokens.values))
    d_shared = _where(requested.head_bias, head_bias), _where(requested.labels, shared)
    start = jnp.zeros(()), *jax.tree.map(jnp.zeros_like, (d_documents, *d_shared))
    label_ids = jnp.arange(tiling.num_labels)
    blocks = jax.tree.map(tiling.tile_labels, (per_label, label_weights.T, label_ids))
    (total, d_documents, d_head_bias, d_shared), d_per_label = jax.lax.scan(add_label_block, start, blocks)
    d_states, d_values = jax.tree.map(tiling.untile_documents, d_documents)
    d_labels = _merge(d_shared, jax.tree.map(tiling.untile_labels, d_per_label))
    return total, _Gradients(d_states, d_values, d_head_bias, d_labels)


def _logits(
    tokens: Tokens, head_bias: Array | None, labels: LabelTables, dtype: DTypeLike
) -> tuple[Array, Array, Array]:
    """Eq. 2-5 of one tile: attention [G, C, T], features [G, C, D] and logits [G, C]."""
    attention = label_attention(tokens.states, tokens.mask, labels.queries, dtype)
    features = label_features(attention, tokens.values, head_bias, dtype)
    return attention, features, classifier.scores(features, labels.weights, labels.bias)


def _tile_sum_and_gradients(
    tokens: Tokens, targets: Targets, head_bias: Array | None, labels: LabelTables, label_ids: Array,
    label_weights: Array, dtype: DTypeLike,
) -> tuple[Array, _Gradients]:  # fmt: skip
    """Computes the sum of Eq. 6 over one tile and all its gradients; those of labels have one row per label.

    XLA removes gradients that are not used.
    """
    attention, features, logits = _logits(tokens, head_bias, labels, dtype)
    is_label = targets.label_ids[..., None] == label_ids
    y = jnp.any(is_label & targets.label_mask[..., None], axis=1).astype(jnp.float32)
    weights = targets.document_mask[:, None] * label_weights
    total = jnp.sum(weights * (jax.nn.softplus(logits) - y * logits))

    d_logits = weights * (jax.nn.sigmoid(logits) - y)
    d_features = d_logits[..., None] * labels.weights
    d_attended = d_features if head_bias is None else jnp.where(features > 0, d_features, 0.0)
    d_attention = product("bld,btd->blt", d_attended, tokens.values, dtype)
    # Backward pass of the softmax: d_scores = alpha (d_alpha - sum_t alpha_t d_alpha_t). That sum over tokens equals
    # the inner product of the attended values and d_attended; where the ReLU passes a gradient, the attended values are
    # features - bias.
    attended = features if head_bias is None else features - head_bias
    d_scores = attention * (d_attention - jnp.sum(d_attended * attended, axis=-1, keepdims=True))
    return total, _Gradients(
        states=product("blt,lh->bth", d_scores, labels.queries, dtype),
        values=product("blt,bld->btd", attention, d_attended, dtype),
        head_bias=jnp.sum(d_attended, axis=(0, 1)),
        labels=LabelTables(
            queries=product("blt,bth->lh", d_scores, tokens.states, dtype),
            weights=jnp.einsum("bl,bld->ld", d_logits, features),
            bias=jnp.sum(d_logits, axis=0),
        ),
    )


def _where(condition: PyTree, tree: PyTree) -> PyTree:
    """Returns the parts of `tree` at which `condition` is not None; None at the rest."""
    return jax.tree.map(lambda c, x: None if c is None else x, condition, tree, is_leaf=lambda c: c is None)


def _merge(shared: LabelTables, per_label: LabelTables) -> LabelTables:
    """Joins shared tables and tables with one row per label; each is None where the other is not."""
    return jax.tree.map(lambda a, b: a if b is None else b, shared, per_label, is_leaf=lambda x: x is None)


class Tiling:
    """Splits documents into tiles and labels into blocks, and joins them again."""

    def __init__(self, shape: tuple[int, ...], num_labels: int, tile_size: TileSize) -> None:
        """Computes the sizes for a batch of `shape` (B, T)."""
        self.num_documents, self.num_labels = shape[0], num_labels
        self.label_shards = math.gcd(tile_size.label_shards, num_labels)
        self._shard_size = num_labels // self.label_shards
        self._num_blocks = -(-self._shard_size // tile_size.labels)
        # Even blocks: a last block of few labels would cost as much as a full one.
        self._block_share = -(-self._shard_size // self._num_blocks)
        self._tile_documents = tile_size.num_documents(*shape)
        self._num_tiles = shape[0] // self._tile_documents

    def per_label(self, labels: LabelTables) -> LabelTables:
        """Returns the tables with one row per label, None in place of shared ones."""
        return jax.tree.map(lambda x: x if has_label_rows(x, self.num_labels) else None, labels)

    def shared(self, labels: LabelTables) -> LabelTables:
        """Returns the tables with a single row for all labels, None in place of the rest."""
        return jax.tree.map(lambda x: None if has_label_rows(x, self.num_labels) else x, labels)

    def mapped(self, function: Callable[[PyTree, PyTree], Array], documents: PyTree, labels: PyTree) -> Array:
        """Computes float32[B, L] tile by tile.

        Args:
            function: returns float32[G, C] of a tile's documents and labels.
            documents: arrays with a row per document.
            labels: arrays with a row per label.
        """
        tiles = jax.tree.map(self.tile_documents, documents)

        def label_block(rows: PyTree) -> Array:
            return jax.lax.map(lambda tile: function(tile, rows), tiles)

        values = jax.lax.map(label_block, jax.tree.map(self.tile_labels, labels))
        # [label blocks, document tiles, G, C] -> [G, document tiles, label blocks, C], the order of `tile_documents`.
        values = values.transpose(2, 1, 0, 3).reshape(self.num_documents, *values.shape[::3])
        return jax.vmap(self.untile_labels)(values)

    def tile_labels(self, x: Array) -> Array:
        """[L, ...] -> [label blocks, C, ...], with zeros as padding: a label weight of 0 removes it.

        A block has as many labels of each shard, so that labels stay on the device to which they are sharded.
        """
        rest = x.shape[1:]
        padding = ((0, 0), (0, self._num_blocks * self._block_share - self._shard_size), *((0, 0),) * len(rest))
        shards = jnp.pad(x.reshape(self.label_shards, self._shard_size, *rest), padding)
        shares = shards.reshape(self.label_shards, self._num_blocks, self._block_share, *rest)
        return shares.swapaxes(0, 1).reshape(self._num_blocks, -1, *rest)

    def places(self, label_ids: Array) -> tuple[Array, Array]:
        """Returns the block of each label, and its place among the C of the block, as `tile_labels` tiles them."""
        shard, row = jnp.divmod(label_ids, self._shard_size)
        block, place = jnp.divmod(row, self._block_share)
        return block, shard * self._block_share + place

    def untile_labels(self, x: Array) -> Array:
        """[label blocks, C, ...] -> [L, ...]."""
        rest = x.shape[2:]
        shares = x.reshape(self._num_blocks, self.label_shards, self._block_share, *rest)
        shards = shares.swapaxes(0, 1).reshape(self.label_shards, -1, *rest)
        return shards[:, : self._shard_size].reshape(self.num_labels, *rest)

    def tile_weights(self, x: Array) -> Array:
        """A block's label weights, [C] or [C, B] -> [document tiles, 1 or G, C]."""
        if x.ndim == 1:
            return jnp.broadcast_to(x, (self._num_tiles, 1, *x.shape))
        return self.tile_documents(x.T)

    def tile_documents(self, x: Array) -> Array:
        """[B, ...] -> [document tiles, G, ...].

        Reshaped to [G, document tiles] first, so that documents stay on the device to which they are sharded.
        """
        return x.reshape(self._tile_documents, self._num_tiles, *x.shape[1:]).swapaxes(0, 1)

    def untile_documents(self, x: Array) -> Array:
        """[document tiles, G, ...] -> [B, ...]."""
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
