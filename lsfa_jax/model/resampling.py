"""The control that the PVAE has to beat: the real features of a tail label, drawn again with replacement.

Classifiers that are adjusted on them see nothing new; the positives of tail labels only weigh more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.model.augmentation import Sampler
from lsfa_jax.types import Array, HostArray


class RealFeatures(NamedTuple):
    """Features in the order of their labels."""

    features: Array
    """float32[P, D]."""
    offsets: Array
    """int32[L + 1]; those of label l are rows offsets[l] to offsets[l + 1]."""


def fit(features: HostArray, label_ids: HostArray, num_labels: int) -> RealFeatures:
    """Sorts features float32[P, D] by their labels int32[P], of L labels."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(label_ids, minlength=num_labels))])
    in_order = np.ascontiguousarray(features[np.argsort(label_ids, kind="stable")], np.float32)
    return RealFeatures(jnp.asarray(in_order), jnp.asarray(offsets, jnp.int32))


def empty(num_labels: int, num_features: int, feature_size: int) -> RealFeatures:
    """Returns zeros of the shapes of `fit`."""
    return RealFeatures(jnp.zeros((num_features, feature_size)), jnp.zeros(num_labels + 1, jnp.int32))


def sampler(real: RealFeatures) -> Sampler:
    """Returns the sampler of one of the label's features, each with the same probability; the label has one or more."""

    def sample(key: Array, label: Array, prototype: Array) -> Array:
        start, end = real.offsets[label], real.offsets[label + 1]
        return real.features[start + jax.random.randint(key, (), 0, jnp.maximum(end - start, 1))]

    return sample
