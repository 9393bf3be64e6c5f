"""Eq. 7-9: supervised contrastive losses over positive feature-label pairs."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from lsfa_jax.config import Denominator
from lsfa_jax.model.attention import MINUS_INFINITY
from lsfa_jax.types import Array

# Below this norm float32 cannot represent a direction, and the gradient of the normalization overflows.
_MIN_NORM = 1e-12


def l2_normalize(x: Array) -> Array:
    """Scales the last axis to norm 1; a vector with a norm below 1e-12 becomes zero, with a zero gradient."""
    squared_norm = jnp.sum(x * x, axis=-1, keepdims=True)
    is_long_enough = squared_norm > _MIN_NORM**2
    return x * jnp.where(is_long_enough, jax.lax.rsqrt(jnp.where(is_long_enough, squared_norm, 1.0)), 0.0)


def supervised_contrastive(
    features: Array, label_ids: Array, mask: Array, temperature: float, normalize: bool = True
) -> Array:
    """Eq. 7-8: the SC loss, each pair against all other pairs of the batch.

    Where Eq. 9 starts from; training does not use it. It needs pairs of the same label within one batch, which is why
    Eq. 9 replaces it.

    Args:
        features: float32[P, D], features v^i of positive pairs.
        label_ids: int32[P], their labels y^i.
        mask: bool[P], false where the pair is padding.
        temperature: tau.
        normalize: whether features are scaled to norm 1 first (cosine similarity).

    Returns:
        float32 scalar, a sum over pairs; a pair that shares its label with no other pair adds 0.
    """
    chex.assert_rank(features, 2)
    chex.assert_equal_shape_prefix((features, label_ids, mask), 1)
    v = l2_normalize(features) if normalize else features
    not_self = mask[None, :] & ~jnp.eye(len(v), dtype=bool)
    similarity = jnp.where(not_self, v @ v.T / temperature, MINUS_INFINITY)
    log_softmax = similarity - jax.nn.logsumexp(similarity, axis=1, keepdims=True)
    is_positive = not_self & (label_ids[None, :] == label_ids[:, None])
    num_positives = jnp.sum(is_positive, axis=1)
    per_pair = -jnp.sum(jnp.where(is_positive, log_softmax, 0.0), axis=1) / jnp.maximum(num_positives, 1)
    return jnp.sum(jnp.where(mask & (num_positives > 0), per_pair, 0.0))


def prototypical_contrastive(
    features: Array,
    label_ids: Array,
    mask: Array,
    prototypes: Array,
    present: Array,
    temperature: float,
    normalize: bool = True,
    denominator: Denominator = "all",
    label_weights: Array | None = None,
) -> Array:
    """Eq. 9 without alpha: the PSC loss, each pair against the prototypes, with the minus sign that the paper omits.

    Args:
        features: float32[P, D], features v^i of positive pairs.
        label_ids: int32[P], their labels y^i.
        mask: bool[P], false where the pair is padding.
        prototypes: float32[L, D], p of Eq. 10; constants, no gradient flows into them.
        present: bool[L], false for a label without a prototype; it is left out of every denominator.
        temperature: tau.
        normalize: cosine similarity instead of the inner product.
        denominator: `all` counts each label once; `exclude_positive` leaves the positive out (Eq. 9 as printed);
            `double_positive` counts the positive twice (the released code).
        label_weights: float32[L], importance weights of the terms of the denominator where the L labels are a sample of
            more labels; 1 for the labels of pairs. None: all 1.

    Returns:
        float32 scalar, a sum over pairs; a pair whose label has no prototype adds 0.
    """
    chex.assert_rank((features, prototypes), 2)
    chex.assert_equal_shape_prefix((features, label_ids, mask), 1)
    chex.assert_shape(present, (len(prototypes),))
    prototypes = jax.lax.stop_gradient(prototypes)
    v, p = (l2_normalize(features), l2_normalize(prototypes)) if normalize else (features, prototypes)
    similarity = jnp.where(present, v @ p.T / temperature, MINUS_INFINITY)
    positive = jnp.take_along_axis(similarity, label_ids[:, None], axis=1)
    if label_weights is not None:
        similarity = _weighted(similarity, label_weights)
    is_positive = jnp.arange(len(prototypes)) == label_ids[:, None]
    return _sum_of_log_ratios(positive, similarity, is_positive, mask & present[label_ids], denominator)


def candidate_contrastive(
    features: Array,
    mask: Array,
    prototypes: Array,
    present: Array,
    candidates: Array,
    sample: Array,
    sample_weights: Array,
    temperature: float,
    normalize: bool = True,
    denominator: Denominator = "all",
) -> Array:
    """Eq. 9 without alpha, in which a document's candidates and a weighted sample of labels represent all labels.

    The estimate of the denominator is unbiased, and exact where all labels are candidates.

    Args:
        features: float32[B, S, D], features v^i of the first S candidates of each document.
        mask: bool[B, S], true where the candidate is a label of the document.
        prototypes: float32[L, D], p of Eq. 10; constants, no gradient flows into them.
        present: bool[L], false for a label without a prototype.
        candidates: int32[B, K], different labels of each document, K >= S; -1 where it has fewer.
        sample: int32[R], labels.
        sample_weights: float32[B, R], `candidate_loss.sample_weights`.
        temperature: tau.
        normalize: cosine similarity instead of the inner product.
        denominator: as for `prototypical_contrastive`.

    Returns:
        float32 scalar, a sum over pairs; a pair whose label has no prototype adds 0.
    """
    chex.assert_rank((features, prototypes, candidates), (3, 2, 2))
    num_pairs = features.shape[1]
    v = l2_normalize(features) if normalize else features

    def similarity(spec: str, label_ids: Array) -> Array:
        p = jax.lax.stop_gradient(prototypes[label_ids])
        return jnp.einsum(spec, v, l2_normalize(p) if normalize else p) / temperature

    rows = jnp.maximum(candidates, 0)
    counts = present[rows] & (candidates >= 0)
    of_candidates = jnp.where(counts[:, None], similarity("bsd,bkd->bsk", rows), MINUS_INFINITY)
    of_sample = jnp.where(present[sample], similarity("bsd,rd->bsr", sample), MINUS_INFINITY)
    terms = jnp.concatenate([of_candidates, _weighted(of_sample, sample_weights[:, None])], axis=2)
    is_positive = jnp.eye(num_pairs, terms.shape[2], dtype=bool)
    positive = jnp.diagonal(of_candidates, axis1=1, axis2=2)[..., None]
    return _sum_of_log_ratios(positive, terms, is_positive, mask & counts[:, :num_pairs], denominator)


def _weighted(similarity: Array, weights: Array) -> Array:
    """Returns s + log w, so that its exp is w exp(s); minus infinity where w is 0."""
    is_weighted = weights > 0
    return jnp.where(is_weighted, similarity + jnp.log(jnp.where(is_weighted, weights, 1.0)), MINUS_INFINITY)


def _sum_of_log_ratios(
    positive: Array, terms: Array, is_positive: Array, mask: Array, denominator: Denominator
) -> Array:
    """Sums log(sum_j exp(s_j) / exp(s_y)) over pairs, the j as `denominator` says; `positive` is s_y with an axis."""
    if denominator == "exclude_positive":
        terms = jnp.where(is_positive, MINUS_INFINITY, terms)
    elif denominator == "double_positive":
        terms = jnp.concatenate([positive, terms], axis=-1)
    per_pair = jax.nn.logsumexp(terms, axis=-1) - positive[..., 0]
    # With a single label the denominator of `exclude_positive` is empty, and the pair adds 0.
    has_terms = jnp.max(terms, axis=-1) > MINUS_INFINITY / 2
    return jnp.sum(jnp.where(mask & has_terms, per_pair, 0.0))


def sum_over_pairs(
    loss: Callable[[Array, Array, Array], Array], features: Array, label_ids: Array, mask: Array, block_size: int = 128
) -> Array:
    """Sums a loss over pairs block by block, so that time grows with the real pairs and not with the padding.

    Padding is sorted behind the real pairs, and blocks of padding alone are skipped. Each block is recomputed in the
    backward pass, so peak memory is that of one block.

    Args:
        loss: of features, label ids and mask; a sum over pairs to which a masked pair adds 0.
        features: float32[P, D].
        label_ids: int32[P].
        mask: bool[P], false where the pair is padding.
        block_size: pairs per block.

    Returns:
        float32 scalar.
    """
    chex.assert_equal_shape_prefix((features, label_ids, mask), 1)
    num_blocks = -(-len(mask) // block_size)
    order = jnp.argsort(~mask, stable=True)

    def to_blocks(x: Array) -> Array:
        padding = ((0, num_blocks * block_size - len(x)), *((0, 0),) * (x.ndim - 1))
        return jnp.pad(x[order], padding).reshape(num_blocks, block_size, *x.shape[1:])

    def add_block(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
        has_pairs = block[2][0]
        return total + jax.lax.cond(has_pairs, jax.checkpoint(loss), lambda *_: jnp.zeros(()), *block), None

    blocks = to_blocks(features), to_blocks(label_ids), to_blocks(mask)
    return jax.lax.scan(add_block, jnp.zeros(()), blocks)[0]
