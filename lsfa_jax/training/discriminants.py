"""Classifiers that start as linear discriminants of a pretrained encoder's mean token states.

Fine-tuning takes few epochs, in which a rare label has few documents to learn its classifier from, and a random
classifier tells the encoder nothing. The classifiers that start are those of Fisher's linear discriminant analysis,
one label against all documents, with one covariance and the labels' means shrunk as James and Stein do.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.evaluation.scorer import over_split
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.types import AnyArray, Array, HostArray
from lsfa_jax.util import sharding

# The covariance plus this share of its mean variance in every direction. With all of the weights, which are a hundred
# times those of a random start, fine-tuning changes the features too little; with a tenth it was more accurate.
_RIDGE, _STRENGTH = 0.03, 0.1


class Moments(NamedTuple):
    """Sums over documents of their features x, of one mean token state each; additive."""

    by_label: Array
    """float32[L, D], sum of x over the documents of each label; perhaps with padding behind them."""
    total: Array
    """float32[D], sum of x."""
    products: Array
    """float32[D, D], sum of x x^T."""


def zero_moments(num_labels: int, feature_size: int) -> Moments:
    """Returns the sums over no documents."""
    return Moments(jnp.zeros((num_labels, feature_size)), jnp.zeros(feature_size), jnp.zeros((feature_size,) * 2))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def add_moments(model: Lsfa, params: Any, batch: Batch, moments: Moments) -> Moments:
    """Adds a batch's documents to the sums; an empty document counts as one with a state of 0."""
    lsfa = model.bind({"params": params})
    states = lsfa.states(batch.words, batch.lengths, stored=batch.states, hidden=batch.hidden)
    features = lsfa.mean_features(states, batch.lengths) * batch.document_mask[:, None]
    pairs = jnp.broadcast_to(features[:, None], (*batch.label_ids.shape, model.feature_size))
    by_label = moments.by_label.at[batch.label_ids].add(pairs * batch.label_mask[..., None])
    return Moments(by_label, moments.total + features.sum(0), moments.products + features.T @ features)


def collect(model: Lsfa, params: Any, batches: Batches, mesh: Mesh) -> Moments:
    """Sums the moments of a split in one pass of the encoder."""
    shapes = jax.eval_shape(lambda: zero_moments(model.num_rows, model.feature_size))
    moments = sharding.zeros(mesh, shapes, model.num_rows)

    def add(batch: Batch) -> Array:
        nonlocal moments
        moments = add_moments(model, params, batch, moments)
        # One number is enough for the pass to wait for the batch.
        return moments.total[0]

    for _ in over_split(add, batches, mesh, "starting classifiers"):
        pass
    return moments


def classifiers(moments: Moments, counts: HostArray, num_documents: int) -> tuple[HostArray, HostArray]:
    """Computes the discriminants w = S^-1 d, where d is a label's mean minus that of all documents, shrunk.

    The logit is that of normal distributions with covariance S around the label's mean and the mean of all documents:
    w (x - m) - d w / 2, of which a tenth is used, plus the log odds of the label's frequency. The squared length of d
    in the metric S^-1 exceeds that of the true difference by about D (1 / n_l - 1 / N), by which d is shrunk. A label
    without documents has w = 0.

    Args:
        moments: of N documents.
        counts: int[L], n_l, the documents of each label.
        num_documents: N.

    Returns:
        float32[L, D], the weights; float32[L], the biases without the log odds.
    """
    by_label, total, products = (np.asarray(x, np.float64) for x in sharding.to_host(moments))
    mean = total / num_documents
    covariance = products / num_documents - np.outer(mean, mean)
    size = len(mean)
    covariance += (_RIDGE * np.trace(covariance) / size + 1e-12) * np.eye(size)
    seen = np.maximum(counts, 1)[:, None]
    differences = np.where(counts[:, None] > 0, by_label[: len(counts)] / seen - mean, 0.0)
    weights = np.linalg.solve(covariance, differences.T).T
    squared = np.maximum(np.sum(weights * differences, axis=1), 1e-12)
    noise = size * np.maximum(1 / seen[:, 0] - 1 / num_documents, 0.0)
    shrunk = np.maximum(0.0, 1 - noise / squared)
    weights *= _STRENGTH * shrunk[:, None]
    biases = -weights @ mean - 0.5 * _STRENGTH * shrunk**2 * squared
    return weights.astype(np.float32), biases.astype(np.float32)


def start(classifier: dict[str, Array], moments: Moments, counts: HostArray, num_documents: int) -> dict[str, AnyArray]:
    """Returns the classifiers with the discriminants as weights; the bias, if there is one, keeps what it had beside.

    Args:
        classifier: "weights" float32[L, D] and optionally "bias" float32[L], of each label's log odds.
        moments: of N documents.
        counts: int[L], the documents of each label.
        num_documents: N.
    """
    num_rows = len(classifier["weights"])
    weights, biases = sharding.pad_rows(classifiers(moments, counts, num_documents), num_rows)
    started = {"weights": weights}
    return started | ({"bias": classifier["bias"] + biases} if "bias" in classifier else {})
