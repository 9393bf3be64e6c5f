"""Eq. 2-6 for the candidates of each document, and an unbiased estimate of Eq. 6 over all labels from them.

A document's candidates C_b are K labels that may be right, all labels of the document among them. They are summed one
by one. All other labels are represented by a sample S of R of the L labels, drawn uniformly without replacement and
shared by the batch. A label is in S with probability R / L, so

    sum_{l in C_b} f_bl + L / R sum_{l in S, not in C_b} f_bl

has the expectation sum_l f_bl, whatever the candidates are. Its cost does not grow with L.

Shapes: B documents, T tokens, H hidden units per direction, D feature, L labels, K candidates of one document, R labels
of the sample.
"""

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.model import classifier, label_loss
from lsfa_jax.model.attention import label_attention, label_features
from lsfa_jax.model.label_loss import LabelTables, Targets, TileSize, Tokens, has_label_rows
from lsfa_jax.types import Array, DTypeLike


def scores(
    tokens: Tokens, head_bias: Array | None, labels: LabelTables, candidates: Array, dtype: DTypeLike = jnp.float32
) -> tuple[Array, Array]:
    """Eq. 2-5 for the candidates of each document.

    Args:
        tokens: token states and values of the documents.
        head_bias: float32[D], bias of the feature head; None without one.
        labels: the label tables.
        candidates: int32[B, K], labels of each document; -1 where it has fewer.
        dtype: of the matrix products, float32 or bfloat16.

    Returns:
        Features float32[B, K, D] and logits float32[B, K]; arbitrary where a document has fewer candidates.
    """
    chex.assert_rank((tokens.states, labels.queries, candidates), (3, 2, 2))
    rows = _rows(labels, jnp.maximum(candidates, 0))
    attention = label_attention(tokens.states, tokens.mask, rows.queries, dtype)
    features = label_features(attention, tokens.values, head_bias, dtype)
    return features, classifier.scores(features, rows.weights, rows.bias)


def loss(
    tokens: Tokens,
    head_bias: Array | None,
    labels: LabelTables,
    candidates: Array,
    sample: Array,
    num_positive: Array,
    document_mask: Array,
    tile_size: TileSize,
    dtype: DTypeLike = jnp.float32,
    num_labels: int | None = None,
) -> tuple[Array, Array]:
    """Estimates Eq. 6, the binary cross-entropy summed over documents and all labels.

    Args:
        tokens: token states and values of the documents.
        head_bias: float32[D], bias of the feature head; None without one.
        labels: the label tables.
        candidates: int32[B, K], different labels of each document, all labels y of the document first; -1 where it has
            fewer.
        sample: int32[R], labels drawn uniformly without replacement.
        num_positive: int32[B], number of labels y of each document.
        document_mask: bool[B], false where the document is padding.
        tile_size: bounds of a tile of the sample.
        dtype: of the matrix products, float32 or bfloat16.
        num_labels: L; None: the number of queries.

    Returns:
        float32 scalar, a sum; and the features of the candidates, float32[B, K, D].
    """
    features, logits = scores(tokens, head_bias, labels, candidates, dtype)
    no_labels = Targets(
        jnp.zeros((len(candidates), 1), jnp.int32), jnp.zeros((len(candidates), 1), bool), document_mask
    )
    weights = sample_weights(candidates, sample, num_labels or len(labels.queries))
    rows = _rows(labels, sample)
    of_sample = label_loss.loss(tokens, head_bias, rows, no_labels, tile_size, dtype, weights)
    return of_candidates(logits, candidates, num_positive, document_mask) + of_sample, features


def of_candidates(logits: Array, candidates: Array, num_positive: Array, document_mask: Array) -> Array:
    """Eq. 6 summed over the candidates of the documents, whose logits are float32[B, K]; the rest as for `loss`."""
    y = jnp.arange(candidates.shape[1]) < num_positive[:, None]
    counts = (candidates >= 0) & document_mask[:, None]
    return jnp.sum(jnp.where(counts, jax.nn.softplus(logits) - y * logits, 0.0))


def _rows(labels: LabelTables, label_ids: Array) -> LabelTables:
    """Returns the rows of the given labels, of the shape of `label_ids`; shared tables stay a single row."""
    num_labels = len(labels.queries)
    return jax.tree.map(lambda table: table[label_ids] if has_label_rows(table, num_labels) else table, labels)


def sample_weights(candidates: Array, sample: Array, num_labels: int) -> Array:
    """Returns float32[B, R], the weight of each label of the sample for each document: L / R, or 0 if a candidate."""
    is_candidate = jnp.any(candidates[:, :, None] == sample, axis=1)
    return jnp.where(is_candidate, 0.0, num_labels / len(sample))
