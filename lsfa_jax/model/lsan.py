"""A baseline of the paper: LSAN (Xiao et al., EMNLP 2019), two attentions of each label and their fusion.

H are the states of a BiLSTM, H> and H< those of its two directions. With a row a label in W_2 and C,

    M_s = softmax(W_2 tanh(W_1 H^T)) H                            self-attention
    M_l = [C H>^T H>, C H<^T H<]                                  label attention, without a softmax
    M = alpha M_s + beta M_l                                      fusion, alpha + beta = 1 for each label
    alpha : beta = sigmoid(M_s W_3) : sigmoid(M_l W_4)

The output layers sigmoid(W_6 relu(W_5 M^T)) serve all labels: W_5 is the feature head, and W_6 the classifier of
`classifier.weights = "shared"`. W_2 and C are one table with a row a label, `queries`. LSAN computes C from the words
of the labels' names; here it is trained from random numbers, since labels may be codes.

Shapes: B documents, T tokens, H hidden units per direction, A units of the self-attention, D feature, L labels, K
labels of one document.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from lsfa_jax.model import candidate_loss, classifier
from lsfa_jax.model.attention import label_attention, product, token_mask
from lsfa_jax.model.label_loss import Tiling
from lsfa_jax.model.lsfa import Lsfa, classifier_rows
from lsfa_jax.types import Array, DTypeLike, Params
from lsfa_jax.util.sharding import pad_rows


class Documents(NamedTuple):
    """What the labels attend to."""

    states: Array
    """float32[B, T, 2H], token states H."""
    mask: Array
    """bool[B, T], false at padding."""
    keys: Array
    """float32[B, T, A], tanh(W_1 H^T)."""
    products: Array
    """float32[B, 2, H, H], H>^T H> and H<^T H<: with them, C H^T H takes no array of labels and tokens."""


def documents(states: Array, lengths: Array, kernel: Array, dtype: DTypeLike = jnp.float32) -> Documents:
    """Computes what depends on no label.

    Args:
        states: float32[B, T, 2H], token states of a BiLSTM.
        lengths: int32[B], tokens of each document; may be 0.
        kernel: float32[2H, A], W_1.
        dtype: of the matrix products.
    """
    chex.assert_rank((states, kernel), (3, 2))
    mask = token_mask(lengths, states.shape[1])
    keys = jnp.tanh(product("bth,ha->bta", states, kernel, dtype))
    directions = (states * mask[..., None]).reshape(*states.shape[:2], 2, -1)
    return Documents(states, mask, keys, product("btxh,btxg->bxhg", directions, directions, dtype))


def fused(documents: Documents, rows: Array, params: Params, dtype: DTypeLike = jnp.float32) -> Array:
    """Computes M, the fused attention of some labels.

    Args:
        documents: what they attend to.
        rows: float32[L, A + H], the rows of W_2 and C of the labels; or [B, K, A + H], other labels for each document.
        params: `self` and `label` float32[2H], W_3 and W_4.
        dtype: of the matrix products.

    Returns:
        float32[B, L or K, 2H]; 0 for a document without tokens.
    """
    of_self, of_label = jnp.split(rows, [documents.keys.shape[-1]], axis=-1)
    attention = label_attention(documents.keys, documents.mask, of_self, dtype)
    by_self = product("blt,bth->blh", attention, documents.states, dtype)
    spec = "lh,bxhg->blxg" if rows.ndim == 2 else "blh,bxhg->blxg"
    by_label = product(spec, of_label, documents.products, dtype).reshape(by_self.shape)
    # a / (a + b) as the sigmoid of log a - log b: both may underflow.
    log_alpha, log_beta = jax.nn.log_sigmoid(by_self @ params["self"]), jax.nn.log_sigmoid(by_label @ params["label"])
    alpha = jax.nn.sigmoid(log_alpha - log_beta)[..., None]
    return alpha * by_self + (1 - alpha) * by_label


def features(attended: Array, head: Params | None, dtype: DTypeLike = jnp.float32) -> Array:
    """Computes relu(W_5 M^T + b), float32[B, L, D] of M float32[B, L, 2H]; M itself without a feature head."""
    if head is None:
        return attended
    return jax.nn.relu(product("blh,hd->bld", attended, head["kernel"], dtype) + head["bias"])


class Lsan(Lsfa, kw_only=True):
    """The classifier with LSAN's attention in place of Eq. 2-4.

    Attributes:
        attention_size: A.
    """

    attention_size: int

    def _init_labels(self, key: Array) -> dict[str, Any]:
        head_key, *keys = jax.random.split(key, 6)
        xavier, states = nn.initializers.xavier_uniform(), self.encoder.state_size
        of_self = xavier(keys[0], (self.num_labels, self.attention_size))
        of_label = xavier(keys[1], (self.num_labels, states // 2))
        lsan = {
            "kernel": xavier(keys[2], (states, self.attention_size)),
            "self": xavier(keys[3], (states, 1))[:, 0],
            "label": xavier(keys[4], (states, 1))[:, 0],
        }
        queries = pad_rows(jnp.concatenate([of_self, of_label], axis=1), self.num_rows)
        return super()._init_labels(head_key) | {"queries": queries, "lsan": lsan}

    def positive_features(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Computes features float32[B, K, D] of some labels of each document, label_ids int32[B, K]."""
        return self._features(self._documents(states, lengths), self.labels["queries"][label_ids])

    def attention_weights(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Computes the self-attention float32[B, K, T]; label attention has no weights that sum to 1."""
        documents = self._documents(states, lengths)
        rows = self.labels["queries"][label_ids][..., : self.attention_size]
        return label_attention(documents.keys, documents.mask, rows, self.dtype)

    def scores(self, states: Array, lengths: Array) -> Array:
        """Computes logits float32[B, num_rows] of all labels; arbitrary at padding."""
        return self._tiled(self._documents(states, lengths), self._logits)

    def loss(
        self,
        states: Array,
        lengths: Array,
        label_ids: Array,
        label_mask: Array,
        document_mask: Array,
        label_weights: Array | None = None,
    ) -> Array:
        """Eq. 6, summed over documents and all labels; the backward pass computes each tile's attention again."""
        logits = self._tiled(self._documents(states, lengths), jax.checkpoint(self._logits))
        if label_weights is None:
            label_weights = self.is_label.astype(jnp.float32)
        return classifier.binary_cross_entropy(logits, label_ids, label_mask, document_mask, label_weights)

    def candidate_scores(self, states: Array, lengths: Array, candidates: Array) -> Array:
        """Computes logits float32[B, K] of some labels of each document, int32[B, K]; arbitrary where one is -1."""
        return self._candidates(self._documents(states, lengths), candidates)[1]

    def candidate_loss(
        self,
        states: Array,
        lengths: Array,
        candidates: Array,
        sample: Array,
        num_positive: Array,
        document_mask: Array,
    ) -> tuple[Array, Array]:
        """Computes the estimate of `loss` and the candidates' features, as `Lsfa.candidate_loss` does."""
        documents = self._documents(states, lengths)
        features, logits = self._candidates(documents, candidates)
        of_candidates = candidate_loss.of_candidates(logits, candidates, num_positive, document_mask)
        rows = self.labels["queries"][sample], *classifier_rows(self.classifier, self.num_rows, sample)
        negatives = jax.nn.softplus(self._logits(documents, rows))
        weights = document_mask[:, None] * candidate_loss.sample_weights(candidates, sample, self.num_labels)
        return of_candidates + jnp.sum(weights * negatives), features

    def _documents(self, states: Array, lengths: Array) -> Documents:
        return documents(states, lengths, self.labels["lsan"]["kernel"], self.dtype)

    def _features(self, documents: Documents, queries: Array) -> Array:
        return features(fused(documents, queries, self.labels["lsan"], self.dtype), self._head, self.dtype)

    def _logits(self, documents: Documents, rows: tuple[Array, Array, Array | None]) -> Array:
        """Computes logits float32[B, L] of labels whose queries, classifiers and biases are given."""
        queries, weights, bias = rows
        return classifier.scores(self._features(documents, queries), weights, bias)

    def _tiled(self, documents: Documents, logits: Callable[..., Array]) -> Array:
        tables = self.labels["queries"], *classifier_rows(self.classifier, self.num_rows, None)
        return Tiling(documents.mask.shape, self.num_rows, self._tile_size).mapped(logits, documents, tables)

    def _candidates(self, documents: Documents, candidates: Array) -> tuple[Array, Array]:
        label_ids = jnp.maximum(candidates, 0)
        features = self._features(documents, self.labels["queries"][label_ids])
        return features, classifier.scores(features, *classifier_rows(self.classifier, self.num_rows, label_ids))
