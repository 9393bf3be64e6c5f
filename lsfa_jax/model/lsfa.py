"""The classifier as one thin module: it declares the parameters of Eq. 1-5 and calls the functions that use them.

Parameters are {"encoder": ..., "labels": {"queries", "head"}, "classifier": {"weights", "bias"}}: those of the encoder,
of label attention and feature head, and of the one-versus-all classifiers, which stage 3 adjusts.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from lsfa_jax import config
from lsfa_jax.model import attention, candidate_loss, candidates, label_loss
from lsfa_jax.model.encoders import Encoder, EncoderShape, LayeredEncoder, make_encoder
from lsfa_jax.types import AnyArray, Array, DTypeLike, PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.sharding import pad_rows

# Tokens whose attention a CPU computes at a time: with fewer, its products are small; with more, its caches overflow.
_CPU_TOKENS = 1024


class Lsfa(nn.Module):
    """Encoder, label attention, feature head and one-versus-all classifiers.

    Bind it to parameters with `bind({"params": params})`, or call a method with `apply(..., method=...)`; `train=True`
    needs a key named `dropout`.

    Attributes:
        encoder: computes the token states.
        num_labels: L.
        label_shards: size of the mesh's axis `label`, over which the tables with one row per label are split.
        head_size: D of the feature head; None without one, then D = 2H.
        shared_classifier: whether all labels share one classifier.
        classifier_bias: whether classifiers have a bias.
        label_block: labels attended at a time; bounds memory.
        num_estimated: labels that a cheap estimate adds to the candidates in prediction.
        dtype: of the matrix products, float32 or bfloat16.
        label_attention: without it attention is even, so that all labels have the feature of the mean token state.
    """

    encoder: Encoder
    num_labels: int
    head_size: int | None
    shared_classifier: bool = False
    classifier_bias: bool = False
    label_block: int = 4096
    num_estimated: int = 20
    dtype: DTypeLike = jnp.float32
    label_shards: int = 1
    label_attention: bool = True

    @property
    def num_rows(self) -> int:
        """Rows of the tables with one row per label: L rounded up to a multiple of `label_shards`.

        The rows after those of the labels are padding: they have no part in a loss and rank last.
        """
        return -(-self.num_labels // self.label_shards) * self.label_shards

    @property
    def feature_size(self) -> int:
        """D."""
        return self.head_size or self.encoder.state_size

    def setup(self) -> None:
        labels = self.param("labels", self._init_labels)
        # Attention to queries of zeros is even.
        self.labels = labels if self.label_attention else labels | {"queries": jnp.zeros_like(labels["queries"])}
        self.classifier = self.param("classifier", self._init_classifier)

    def _init_labels(self, key: Array) -> dict[str, Any]:
        queries_key, head_key = jax.random.split(key)
        xavier, states = nn.initializers.xavier_uniform(), self.encoder.state_size
        labels: dict[str, Any] = {"queries": pad_rows(xavier(queries_key, (self.num_labels, states)), self.num_rows)}
        if self.head_size:
            labels["head"] = {"kernel": xavier(head_key, (states, self.head_size)), "bias": jnp.zeros(self.head_size)}
        return labels

    def _init_classifier(self, key: Array) -> dict[str, Array]:
        rows, scale = 1 if self.shared_classifier else self.num_labels, self.feature_size**-0.5
        weights = jax.random.uniform(key, (rows, self.feature_size), minval=-scale, maxval=scale)
        classifier = {"weights": weights} | ({"bias": jnp.zeros(rows)} if self.classifier_bias else {})
        return classifier if self.shared_classifier else pad_rows(classifier, self.num_rows)

    def states(
        self,
        token_ids: Array | None,
        lengths: Array,
        train: bool = False,
        stored: Array | None = None,
        hidden: Array | None = None,
    ) -> Array:
        """Eq. 1: token states float32[B, T, 2H] of token ids int32[B, T] and lengths int32[B].

        What was stored is used in place of the encoder, states [B, T, 2H], or of its frozen layers, hidden states
        [B, R, H].
        """
        if stored is not None:
            return stored.astype(jnp.float32)
        if hidden is not None:
            return cast(LayeredEncoder, self.encoder).from_hidden(hidden, lengths, train)
        assert token_ids is not None
        return self.encoder(token_ids, lengths, train)

    def hidden(self, token_ids: Array, lengths: Array) -> Array:
        """Computes the hidden states of the encoder's frozen layers, float32[B, R, H]."""
        return cast(LayeredEncoder, self.encoder).hidden(token_ids, lengths)

    def positive_features(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Eq. 2-4: features float32[B, K, D] of some labels of each document, label_ids int32[B, K]."""
        mask = attention.token_mask(lengths, states.shape[1])
        return attention.few_label_features(states, mask, self.labels["queries"][label_ids], self._head, self.dtype)

    def attention_weights(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Eq. 4: the weights float32[B, K, T] of the words for some labels of each document, label_ids int32[B, K]."""
        mask = attention.token_mask(lengths, states.shape[1])
        return attention.label_attention(states, mask, self.labels["queries"][label_ids], self.dtype)

    def scores(self, states: Array, lengths: Array) -> Array:
        """Eq. 2-5: logits float32[B, num_rows] of all labels; arbitrary at padding."""
        tokens = self._tokens(states, lengths)
        return label_loss.scores(tokens, self._head_bias, self._label_tables(), self._tile_size, self.dtype)

    def loss(
        self,
        states: Array,
        lengths: Array,
        label_ids: Array,
        label_mask: Array,
        document_mask: Array,
        label_weights: Array | None = None,
    ) -> Array:
        """Eq. 2-6: the cross-entropy summed over documents and all labels, as `label_loss.loss` computes it."""
        tokens, targets = self._tokens(states, lengths), label_loss.Targets(label_ids, label_mask, document_mask)
        tables, tile_size = self._label_tables(), self._tile_size
        if label_weights is None:
            label_weights = self.is_label.astype(jnp.float32)
        return label_loss.loss(tokens, self._head_bias, tables, targets, tile_size, self.dtype, label_weights)

    def candidate_scores(self, states: Array, lengths: Array, candidates: Array) -> Array:
        """Eq. 2-5: logits float32[B, K] of some labels of each document, int32[B, K]; arbitrary where one is -1."""
        tokens, tables = self._tokens(states, lengths), self._label_tables()
        return candidate_loss.scores(tokens, self._head_bias, tables, candidates, self.dtype)[1]

    def predicted_candidates(self, states: Array, lengths: Array, proposed: Array) -> tuple[Array, Array]:
        """Computes what prediction compares a document with: the proposed labels and the best others by `estimates`.

        Args:
            states: float32[B, T, 2H], token states.
            lengths: int32[B].
            proposed: int32[B, K], different labels of each document; -1 where it has fewer.

        Returns:
            int32[B, K + num_estimated], the labels, -1 where there are fewer, and their logits.
        """
        features = self.mean_features(states, lengths)
        tables = classifier_rows(self.classifier, self.num_rows, None)
        tiling = label_loss.Tiling(proposed.shape, self.num_rows, self._tile_size)

        def estimate(rows: tuple[Array, Array | None]) -> Array:
            return self._mean_logits(features, *rows)

        label_ids = candidates.with_best_others(proposed, estimate, tables, self.num_labels, self.num_estimated, tiling)
        return label_ids, self.candidate_scores(states, lengths, label_ids)

    def candidate_loss(
        self,
        states: Array,
        lengths: Array,
        candidates: Array,
        sample: Array,
        num_positive: Array,
        document_mask: Array,
    ) -> tuple[Array, Array]:
        """Eq. 2-6: the estimate of `loss` and the candidates' features, as `candidate_loss.loss` computes them."""
        tokens, tables, tile_size = self._tokens(states, lengths), self._label_tables(), self._tile_size
        labels = candidates, sample, num_positive, document_mask
        return candidate_loss.loss(tokens, self._head_bias, tables, *labels, tile_size, self.dtype, self.num_labels)

    def estimates(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Estimates logits float32[B, M] of the labels int32[M] from features without attention.

        Every label gets the feature of the document's mean token state, so that a label costs D operations instead of
        T x 2H.
        """
        rows = classifier_rows(self.classifier, self.num_rows, label_ids)
        return self._mean_logits(self.mean_features(states, lengths), *rows)

    def _mean_logits(self, features: Array, weights: Array, bias: Array | None) -> Array:
        logits = attention.product("bd,md->bm", features, weights, self.dtype)
        return logits if bias is None else logits + bias

    def mean_features(self, states: Array, lengths: Array) -> Array:
        """Computes float32[B, D], the feature of each document's mean token state: that of even attention."""
        number = jnp.clip(lengths, 1, states.shape[1])  # one, where an encoder pools the tokens
        mean = jnp.sum(states, axis=1, keepdims=True) / number[:, None, None]
        features = attention.project_tokens(mean, self._head, self.dtype)[:, 0]
        return features if self._head_bias is None else jax.nn.relu(features + self._head_bias)

    def __call__(self, token_ids: Array, lengths: Array, train: bool = False) -> Array:
        """Eq. 1-5: logits float32[B, L] of token ids int32[B, T] and lengths int32[B]."""
        return self.scores(self.states(token_ids, lengths, train), lengths)

    @property
    def _head(self) -> dict[str, Array] | None:
        return self.labels.get("head")

    @property
    def _head_bias(self) -> Array | None:
        return None if self._head is None else self._head["bias"]

    def _label_tables(self) -> label_loss.LabelTables:
        return label_loss.LabelTables(self.labels["queries"], self.classifier["weights"], self.classifier.get("bias"))

    def _tokens(self, states: Array, lengths: Array) -> label_loss.Tokens:
        values = attention.project_tokens(states, self._head, self.dtype)
        return label_loss.Tokens(states, values, attention.token_mask(lengths, states.shape[1]))

    @property
    def _tile_size(self) -> label_loss.TileSize:
        # Accelerators compute all documents of a block of labels at a time.
        on_cpu = jax.default_backend() == "cpu"
        data_shards = len(sharding.devices_of_job()) // self.label_shards
        return label_loss.TileSize(self.label_block, _CPU_TOKENS if on_cpu else 0, data_shards, self.label_shards)

    @property
    def is_label(self) -> Array:
        """bool[num_rows], false at padding."""
        return jnp.arange(self.num_rows) < self.num_labels


def make_model(settings: config.Config, shape: EncoderShape, num_labels: int, label_shards: int = 1) -> Lsfa:
    """Returns the classifier that the settings describe, with an encoder of the given shape."""
    kind: Callable[..., Lsfa] = Lsfa
    if settings.encoder.attention == "lsan":
        from lsfa_jax.model.lsan import Lsan  # which extends Lsfa

        kind = functools.partial(Lsan, attention_size=settings.encoder.attention_size)
    dtype = jnp.dtype(settings.precision)
    return kind(
        encoder=make_encoder(settings.encoder, shape, dtype),
        num_labels=num_labels,
        head_size=settings.encoder.feature_size if settings.encoder.feature_head else None,
        shared_classifier=settings.classifier.weights == "shared",
        classifier_bias=settings.classifier.bias,
        label_block=settings.encoder.label_block,
        num_estimated=settings.representation.num_estimated,
        dtype=dtype,
        label_shards=label_shards,
        label_attention=settings.encoder.label_attention,
    )


def init_params(model: Lsfa, key: Array) -> dict[str, Any]:
    """Returns initial parameters."""

    # Token states use no label, but all parameters are declared before they are computed.
    def init(key: Array) -> dict[str, Any]:
        return model.init(key, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32), method=Lsfa.states)["params"]

    return jax.jit(init)(key)


def label_rows(params: dict[str, Any], num_rows: int, label_ids: AnyArray | slice) -> PyTree:
    """Returns a tree like `params`: `label_ids` for each table with one row a label, None for other arrays."""
    rows = jax.tree.map(lambda _: None, params)
    for path in (("labels", "queries"), ("classifier", "weights"), ("classifier", "bias")):
        table = params[path[0]].get(path[1])
        if table is not None and label_loss.has_label_rows(table, num_rows):
            rows[path[0]][path[1]] = label_ids
    return rows


def without_padding(params: dict[str, Any], model: Lsfa) -> dict[str, Any]:
    """Returns the parameters with the L rows of the labels alone."""
    rows = label_rows(params, model.num_rows, slice(model.num_labels))
    return jax.tree.map(lambda table, labels: table if labels is None else table[labels], params, rows)


def classifier_rows(classifier: dict[str, Array], num_rows: int, label_ids: Array | None) -> tuple[Array, Array | None]:
    """Returns w_l float32[..., D] and the bias float32[...] or None; a shared classifier is repeated.

    Args:
        classifier: its weights and perhaps a bias, for each label or shared.
        num_rows: of tables with a row per label.
        label_ids: int32[...]; None: all rows.
    """

    def rows(table: Array) -> Array:
        if label_loss.has_label_rows(table, num_rows):
            return table if label_ids is None else table[label_ids]
        shape = (num_rows,) if label_ids is None else label_ids.shape
        return jnp.broadcast_to(table, (*shape, *table.shape[1:]))

    return rows(classifier["weights"]), rows(classifier["bias"]) if "bias" in classifier else None
