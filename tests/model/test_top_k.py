import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.model import top_k as module

top_k = jax.jit(module.top_k, static_argnums=(1, 2))


@given(seed=st.integers(0, 10**6), shards=st.sampled_from([1, 2, 4]), k=st.sampled_from([1, 3, 8]))
def test_the_best_of_the_shards_best_are_the_best(seed, shards, k):
    # Few different values, so that ties decide.
    scores = np.random.default_rng(seed).integers(-2, 3, (3, 8)).astype(np.float32)
    scores[0, :4] = -np.inf
    for actual, expected in zip(top_k(scores, k, shards), jax.lax.top_k(scores, k), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shards", [1, 4])
def test_fewer_labels_than_k_in_a_shard(shards):
    values, label_ids = top_k(np.arange(8, dtype=np.float32)[None], 6, shards)
    np.testing.assert_array_equal(label_ids, [[7, 6, 5, 4, 3, 2]])
    np.testing.assert_array_equal(values, label_ids)
