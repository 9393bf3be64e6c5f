"""A rival to the PVAE: features from a normal distribution around the prototype, with the covariance of head labels.

With the covariance of the nearest head labels this is the distribution calibration of Yang, Liu and Xu (ICLR 2021,
"Free Lunch for Few-shot Learning"). Theirs also moves the mean towards those of the nearest classes; ours stays the
prototype, as in Eq. 18, so that methods differ in the variation that they generate and in nothing else.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.model.augmentation import Sampler
from lsfa_jax.types import Array, HostArray


class Covariances(NamedTuple):
    """Covariances of head labels as factors F with F F' the covariance, and which of them a label takes the mean of."""

    factors: Array
    """float32[M, D, D]."""
    chosen: Array
    """int32[L, K], indices into `factors`."""


def covariances(features: HostArray, label_ids: HostArray, prototypes: HostArray, labels: HostArray) -> HostArray:
    """Computes the unbiased covariance of the features of each label around its prototype.

    Args:
        features: float[P, D], with `label_ids` int[P].
        label_ids: their labels.
        prototypes: float[L, D], the means of the features.
        labels: int[M], labels with two features or more.

    Returns:
        float64[M, D, D].
    """
    matrices = np.zeros((len(labels), features.shape[1], features.shape[1]))
    for matrix, deviations in zip(matrices, _deviations(features, label_ids, prototypes, labels), strict=True):
        matrix[:] = deviations.T @ deviations / max(1, len(deviations) - 1)
    return matrices


def pooled_covariance(features: HostArray, label_ids: HostArray, prototypes: HostArray, labels: HostArray) -> HostArray:
    """Computes the covariance of `covariances` pooled over the labels, float64[D, D], in the memory of one matrix."""
    scatter, freedom = np.zeros((features.shape[1], features.shape[1])), 0
    for deviations in _deviations(features, label_ids, prototypes, labels):
        scatter += deviations.T @ deviations
        freedom += max(0, len(deviations) - 1)
    return scatter / max(1, freedom)


def _deviations(
    features: HostArray, label_ids: HostArray, prototypes: HostArray, labels: HostArray
) -> Iterator[HostArray]:
    """Yields the deviations of each label's features from its prototype, float64[n, D]."""
    order = np.argsort(label_ids, kind="stable")
    starts, ends = (np.searchsorted(label_ids[order], labels, side) for side in ("left", "right"))
    for label, start, end in zip(labels, starts, ends, strict=True):
        yield features[order[start:end]].astype(np.float64) - prototypes[label]


def factor(matrix: HostArray) -> HostArray:
    """Computes F with F F' = C of a symmetric C without negative eigenvalues, float64[D, D]; C may be singular."""
    values, vectors = np.linalg.eigh(matrix)
    root: HostArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def nearest(prototypes: HostArray, labels: HostArray, number: int) -> HostArray:
    """Finds the `labels`, int[M], whose prototypes are nearest to each label's in Euclidean distance.

    Args:
        prototypes: float[L, D].
        labels: the ones to choose from.
        number: K, at most M.

    Returns:
        int32[L, K], indices into `labels`, nearest first.
    """
    centres = prototypes[labels].astype(np.float64)
    squared = (centres**2).sum(axis=1) - 2 * prototypes.astype(np.float64) @ centres.T
    return np.argsort(squared, axis=1, kind="stable")[:, :number].astype(np.int32)


def fit(
    features: HostArray, label_ids: HostArray, prototypes: HostArray, is_head: HostArray, num_nearest: int
) -> Covariances:
    """Computes the covariances that features of tail labels are drawn with.

    Args:
        features: float32[P, D], of the head labels.
        label_ids: int32[P].
        prototypes: float32[L, D].
        is_head: bool[L].
        num_nearest: K, the nearest head labels whose covariances are averaged; 0: one covariance pooled over all.
    """
    heads = np.flatnonzero(is_head)
    if num_nearest:
        matrices = covariances(features, label_ids, prototypes, heads)
        chosen = nearest(prototypes, heads, min(num_nearest, len(heads)))
    else:
        matrices = pooled_covariance(features, label_ids, prototypes, heads)[None]
        chosen = np.zeros((len(prototypes), 1), np.int32)
    factors = np.stack([factor(matrix) for matrix in matrices]).astype(np.float32)
    return Covariances(jnp.asarray(factors), jnp.asarray(chosen))


def empty(num_labels: int, num_heads: int, feature_size: int, num_nearest: int) -> Covariances:
    """Returns zeros of the shapes of `fit`."""
    number, size = (num_heads, min(num_nearest, num_heads)) if num_nearest else (1, 1)
    return Covariances(jnp.zeros((number, feature_size, feature_size)), jnp.zeros((num_labels, size), jnp.int32))


def sampler(covariances: Covariances, nonnegative: bool) -> Sampler:
    """Returns the sampler of N(p_l, mean of the covariances of label l).

    The sum of K independent normal vectors with covariances C_k / K has the mean of the C_k as its covariance, so no
    factor for each tail label is stored.

    Args:
        covariances: of `fit`.
        nonnegative: features are outputs of a ReLU, so drawn ones pass through a ReLU too.
    """

    def sample(key: Array, label: Array, prototype: Array) -> Array:
        factors = covariances.factors[covariances.chosen[label]]
        number, size = factors.shape[:2]
        noise = jax.random.normal(key, (number, size))
        feature = prototype + jnp.einsum("kde,ke->d", factors, noise) / jnp.sqrt(number)
        return jax.nn.relu(feature) if nonnegative else feature

    return sample
