import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.negative_sampling import ShortlistPool, sample_pool
from lsfa_jax.util.random_streams import Stream, stream
from tests.reference.agreement import assert_equal


@st.composite
def problems(draw):
    """Labels of a batch, L and the size of the shortlist."""
    num_labels = draw(st.integers(1, 200))
    label_ids = draw(st.lists(st.integers(0, num_labels - 1), max_size=60))
    return np.array(label_ids, np.int32), num_labels, draw(st.integers(1, 64))


@given(problems(), st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 10**6))
def test_candidates_are_the_labels_of_the_batch_and_a_pool_of_negatives(problem, seed, epoch, step):
    label_ids, num_labels, size = problem
    positives, pool = sample_pool(label_ids, num_labels, size, seed, epoch, step)
    positive, negative = positives[positives < num_labels], pool[pool < num_labels]
    assert positive.tolist() == sorted(set(label_ids.tolist()))
    assert not set(positive) & set(negative)
    assert len(set(negative)) == len(negative) == min(len(pool), num_labels - len(positive))
    assert np.all(negative >= 0)
    for padded, ids in ((positives, positive), (pool, negative)):
        assert padded.dtype == np.int32
        assert np.all(padded[len(ids) :] == num_labels)
    # Doubled until positives fill at most half: few sizes, so few programs.
    assert 2 * len(positive) <= len(positives)
    assert len(positives) == size or 4 * len(positive) > len(positives)
    assert len(positives) in [size * 2**i for i in range(8)]


@given(problems())
def test_candidates_depend_only_on_the_set_of_labels_seed_epoch_and_step(problem):
    label_ids, num_labels, size = problem
    assert_equal(
        sample_pool(label_ids, num_labels, size, 3, 2, 7),
        sample_pool(label_ids[::-1], num_labels, size, 3, 2, 7),
    )


def test_pools_of_different_steps_epochs_and_seeds_differ():
    keys = [(seed, epoch, step) for seed in (0, 1) for epoch in (1, 2) for step in (0, 1, 2)]
    pools = {tuple(sample_pool(np.zeros(0, int), 1000, 16, *key).pool) for key in keys}
    assert len(pools) == len(keys)


@pytest.mark.parametrize("step", [0, 1])
def test_the_pool_does_not_share_the_random_stream_of_the_order_of_documents(step):
    # The same stream would give the same random choice, or after one more draw from the stream the next one.
    num_labels, no_labels = 1000, np.zeros(0, int)
    for seed, epoch in ((0, 1), (7, 3)):
        pool = sample_pool(no_labels, num_labels, 16, seed, epoch, step).pool
        shared = stream(Stream.REPRESENTATION_ORDER, seed, epoch)
        for _ in range(3):
            choice = shared.choice(num_labels, len(pool), replace=False)
            # Two independent pools of 128 from 1,000 labels agree in about 0.1 positions.
            assert np.sum(choice == pool) < 5


@pytest.mark.parametrize("label_ids", [[], [0, 9, 9]], ids=["no labels", "two labels"])
def test_every_negative_is_equally_likely_at_every_position_of_the_pool(label_ids):
    num_pools, num_negatives = 4000, 30 - len(set(label_ids))
    pools = np.array([sample_pool(np.array(label_ids, int), 30, 2, 0, 1, step).pool for step in range(num_pools)])[
        :, :8
    ]
    for column in (slice(None), slice(0, 1), slice(7, 8)):
        counts = np.bincount(pools[:, column].reshape(-1), minlength=31)
        probability = pools[:, column].shape[1] / num_negatives
        expected = np.full(31, num_pools * probability)
        expected[[*label_ids, 30]] = 0
        # Five standard errors of a count.
        np.testing.assert_allclose(counts, expected, atol=5 * np.sqrt(num_pools * probability * (1 - probability)))


def test_candidates_of_a_single_label():
    assert_equal(sample_pool(np.array([0, 0]), 1, 1, 0, 1, 0), ShortlistPool(np.array([0, 1]), np.array([1])))
    assert_equal(sample_pool(np.array([], int), 1, 1, 0, 1, 0), ShortlistPool(np.array([1]), np.array([0])))
